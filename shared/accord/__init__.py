"""The roads between the services: contracts, messaging, agreements and HTTP kit. It knows no lead rules."""
