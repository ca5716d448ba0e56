"""GET /v1/sources/{name}/events: events of tools that wait, failed or were processed later. Contents are shown to keys with
personal:read only.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.paging import CursorText, Limit, Page, decode_single_cursor, make_page
from intake.hooks.service.events import HookEvents
from intake.sources.api import Name


class HookEventOut(BaseModel):
    """One event, without what it says."""

    model_config = ConfigDict(from_attributes=True)

    hook_event_id: UUID
    event_id: str = Field(description="The tool's own id of the event, or a digest where it gives none.")
    action: Literal["fetch", "submit", "update", "activity", "link", "erase"] = Field(
        description=(
            "What is to be done: fetch a record, submit what it says (update: of somebody who is known), record an activity, have several"
            " ids lead to one person, erase a person."
        )
    )
    state: Literal["waiting", "done", "failed"]
    attempts: int
    due_at: datetime = Field(description="When it is tried next, for one that waits.")
    error: str | None = Field(description="Why it was not done, or a note on how it ended; never a value of the event.")
    lead_id: UUID | None
    occurred_at: datetime
    recorded_at: datetime


class HookEventDetailOut(HookEventOut):
    """One event with what it says."""

    content: JsonValue = Field(description="The event as it came; null without personal:read, and once it is done.")


def hook_event_router(events: HookEvents) -> APIRouter:
    """The routes, for keys with the scope `admin`."""
    router = APIRouter(prefix="/v1/sources/{name}/events", tags=["sources"])
    admin = [require("admin")]

    @router.get("", summary="Events that wait, were given up or were done", responses=problems(404), dependencies=admin)
    async def list_events(
        name: Name,
        state: Annotated[Literal["waiting", "done", "failed"], Query()] = "failed",
        limit: Limit = 50,
        cursor: CursorText = None,
    ) -> Page[HookEventOut]:
        """The newest first."""
        found = await events.page(name, state, decode_single_cursor(cursor, UUID), limit + 1)
        items, after = make_page(found, limit, lambda event: event.hook_event_id)
        return Page(items=[HookEventOut.model_validate(event) for event in items], next_cursor=after)

    @router.get("/{hook_event_id}", summary="One event", responses=problems(404))
    async def get_event(name: Name, hook_event_id: UUID, caller: Caller = require("admin")) -> HookEventDetailOut:
        event = await events.get(name, hook_event_id)
        shown = "personal:read" in caller.scopes and event.content != ""
        content = orjson.loads(event.content) if shown else None
        return HookEventDetailOut(**HookEventOut.model_validate(event).model_dump(), content=content)

    @router.post(
        "/{hook_event_id}/retry",
        summary="Have an event that was given up tried again",
        responses=problems(404, 409),
        dependencies=admin,
    )
    async def retry_event(name: Name, hook_event_id: UUID) -> HookEventOut:
        """By the source as it is configured now, for another day."""
        return HookEventOut.model_validate(await events.retry(name, hook_event_id))

    @router.post(
        "/{hook_event_id}/discard",
        summary="Give an event up for good",
        responses=problems(404, 409),
        dependencies=admin,
    )
    async def discard_event(name: Name, hook_event_id: UUID) -> HookEventOut:
        """What it says is deleted; that it came stays known, so that it is not taken when it comes again."""
        return HookEventOut.model_validate(await events.discard(name, hook_event_id))

    return router
