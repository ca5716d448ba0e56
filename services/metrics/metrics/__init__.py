"""Metrics: projects the events of all services into funnel, velocity and timeline."""
