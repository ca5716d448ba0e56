"""What a version of the definition does to the leads that are there already: how far they have been evaluated by it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from accord.contracts.values import Timestamp
from accord.db import Database
from accord.http.auth import Caller, require
from accord.http.openapi import problems
from accord.http.problems import not_found
from qualification.lifecycle.service.reevaluation import get_progress


class ReevaluationAnswer(BaseModel):
    """How far the leads that were there have been evaluated by the newest version."""

    version: int
    state: Literal["running", "done"]
    started_at: Timestamp
    done_at: Timestamp | None
    leads: int = Field(description="How many leads an older version evaluated when it began.")
    processed: int
    evaluated: int = Field(description="How many of them are evaluated by it now; won and lost ones are left alone.")
    changed: int = Field(description="How many entered another stage by it.")


def router(database: Database) -> APIRouter:
    """The routes over one database."""
    routes = APIRouter(tags=["definition"])

    @routes.get(
        "/v1/definition/reevaluation",
        summary="How far leads have been evaluated by a new version",
        operation_id="get_reevaluation",
        responses=problems(404),
    )
    async def get_reevaluation(_caller: Caller = require("leads:read")) -> ReevaluationAnswer:
        """Leads on their way are evaluated by a new version in the background, as of the moment at which it came into force.

        404 while there has been no version before the one in force. A lead that something is told of comes first.
        """
        found = await get_progress(database)
        if found is None:
            raise not_found("reevaluation")
        return ReevaluationAnswer(
            version=found.version,
            state="running" if found.done_at is None else "done",
            started_at=found.started_at,
            done_at=found.done_at,
            leads=found.leads,
            processed=found.processed,
            evaluated=found.evaluated,
            changed=found.changed,
        )

    return routes
