"""Every service has the routes, the workers and the gauges, over the types of its own events."""

from __future__ import annotations

from types import ModuleType

import pytest

import intake.main
import metrics.main
import qualification.main
import sla_monitor.main
from accord.contracts.topics import EVENTS_ON, TOPIC_OF
from accord.service import Service, create_app

SERVICES = {
    "intake": intake.main,
    "qualification": qualification.main,
    "sla-monitor": sla_monitor.main,
    "metrics": metrics.main,
}


@pytest.fixture
async def service(request: pytest.FixtureRequest):
    main: ModuleType = SERVICES[request.param]
    settings = main.Settings(database_url="postgresql://nobody@127.0.0.1:1/x", kafka_bootstrap_servers="127.0.0.1:1")
    made: Service = main.build(settings)
    yield made
    await made.database.dispose()


@pytest.mark.parametrize("service", SERVICES, indirect=True)
async def test_service_notifies_of_its_own_events(service: Service):
    paths = create_app(service).openapi()["paths"]
    assert {
        "/v1/subscriptions",
        "/v1/subscriptions/{subscription_id}",
        "/v1/subscriptions/{subscription_id}/rotate-secret",
        "/v1/subscriptions/{subscription_id}/test",
        "/v1/subscriptions/{subscription_id}/redeliver",
        "/v1/deliveries",
        "/v1/deliveries/{delivery_id}",
        "/v1/deliveries/{delivery_id}/redeliver",
    } <= paths.keys()
    assert paths["/v1/subscriptions"]["post"]["x-scope"] == "admin"
    workers = {worker.name for worker in service.workers}
    assert {"notifications", "notifications-prune", "notifications-reencrypt"} <= workers
    assert "notifications" in {collector.name for collector in service.collectors}
    assert service.database.on_publish is not None
    own = {event.type for event in EVENTS_ON[TOPIC_OF[service.name]]}
    router = service.database.on_publish.__self__  # type: ignore[attr-defined]
    assert set(router._catalog._event_types) == own - {"watermark.advanced.v1"}
