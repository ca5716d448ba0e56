"""Notifications: who is told of which event, and how it gets there. One engine in every service, mounted by `main`."""

from accord.notifications.engine import NotificationEngine

__all__ = ["NotificationEngine"]
