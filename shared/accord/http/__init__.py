"""The HTTP kit of all services: authentication, errors and limits. It knows no resource of any service."""
