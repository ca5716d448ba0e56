"""Composes notifications for a service: routes, workers and gauges, and the router that sees what the service publishes."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from accord.collectors import Collector
from accord.contracts.topics import EVENTS_ON, TOPIC_OF, ServiceName
from accord.contracts.watermarks import WatermarkAdvanced
from accord.db import Database
from accord.notifications.api import notification_router
from accord.notifications.channels.mail import EmailSender
from accord.notifications.channels.message import Sender
from accord.notifications.channels.posting import Poster
from accord.notifications.channels.slack import SlackSender
from accord.notifications.channels.teams import TeamsSender
from accord.notifications.channels.webhook import WebhookSender
from accord.notifications.domain.model import Channel
from accord.notifications.service.catalog import SubscriptionCatalog
from accord.notifications.service.delivery import DeliveryWorker
from accord.notifications.service.routing import EventRouter
from accord.notifications.service.subscriptions import Subscriptions
from accord.notifications.service.upkeep import prune_worker, reencryption_worker, waiting_collector
from accord.outbound import LookUp, look_up
from accord.secrets import SecretCipher
from accord.settings import Settings
from accord.workers import Worker


class NotificationEngine:
    """Notifications of one service. From its making on, what the database publishes is routed."""

    def __init__(
        self, service: ServiceName, database: Database, settings: Settings, *, look_up: LookUp = look_up
    ) -> None:
        event_types = [event.type for event in EVENTS_ON[TOPIC_OF[service]] if event is not WatermarkAdvanced]
        cipher = SecretCipher(settings.encryption_keys(), "accord.subscription")
        poster = Poster(allow_private=settings.outbound_allow_private, look_up=look_up)
        senders: dict[Channel, Sender] = {
            "webhook": WebhookSender(poster),
            "slack": SlackSender(poster),
            "teams": TeamsSender(poster),
        }
        if settings.smtp is not None:
            senders["email"] = EmailSender(settings.smtp)
        self.catalog = SubscriptionCatalog(database, event_types)
        self.subscriptions = Subscriptions(
            database,
            self.catalog,
            cipher,
            event_types=event_types,
            channels=senders,
            allow_private=settings.outbound_allow_private,
            look_up=look_up,
        )
        self.delivery = DeliveryWorker(database, self.catalog, cipher, senders, settings.console_url)
        self._database = database
        database.on_publish = EventRouter(self.catalog).route

    def router(self) -> APIRouter:
        """The routes under /v1/subscriptions and /v1/deliveries."""
        return notification_router(self._database, self.subscriptions)

    def workers(self) -> Sequence[Worker]:
        """What delivers, and what keeps the tables."""
        return [self.delivery, prune_worker(self._database), reencryption_worker(self.subscriptions)]

    def collector(self) -> Collector:
        return waiting_collector(self._database)
