"""The HTTP kit of all services: who calls, how errors look, what is bounded. It knows no resource of any service."""
