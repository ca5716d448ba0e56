"""The collector of agreements: which version is in force."""

from __future__ import annotations

from accord.agreements.store import AgreementStore
from accord.collectors import Collector
from accord.metric_names import AGREEMENT_ACTIVE


def agreement_collector(store: AgreementStore) -> Collector:
    """The version of this agreement that is in force, 0 if none is."""

    async def collect() -> None:
        AGREEMENT_ACTIVE.labels(store.kind.kind).set(await store.active_version() or 0)

    return Collector(name="agreement", gauges=[AGREEMENT_ACTIVE], collect=collect)
