"""The shared library of the services: contracts, messaging, agreements and HTTP kit. It knows no lead rules."""
