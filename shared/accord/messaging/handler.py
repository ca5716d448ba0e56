"""What a handler gets: events, with the place that each was read from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from accord.contracts.envelope import Event
from accord.db import UnitOfWork


class Received(Struct, frozen=True):
    """An event and the place it was read from. `topic` is without the cluster's prefix."""

    event: Event
    topic: str
    partition: int
    offset: int


Handler = Callable[[UnitOfWork, Sequence[Received]], Awaitable[None]]
"""Applies events that are new to the inbox, in order within each key, inside the one transaction of `UnitOfWork`."""
