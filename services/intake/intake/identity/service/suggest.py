"""Suggests leads that may be one person. It writes nothing and merges nobody; that takes a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
from msgspec import Struct

from accord.db import Database, connection_of
from intake.identity.domain.similarity import Person, Similarity, score_pair
from intake.identity.queries import duplicates
from intake.identity.service.name_matching import compare_people
from intake.leads.queries import do_not_merge as do_not_merge_pairs
from intake.leads.queries import lookup
from intake.leads.queries.lookup import FoundLead
from intake.leads.service.merge_group import get_merge_group

SUGGESTIONS_MAX = 50
"""Suggestions of one lead that are answered."""
_RANKED_MAX = 4 * SUGGESTIONS_MAX
"""Of the best so many, those that a person has separated from the lead are left out."""


class Suggestion(Struct, frozen=True):
    """A lead that may be the same person, and why."""

    found: FoundLead
    score_pair: Similarity


class Suggestions(Struct, frozen=True):
    """The best first, and how many leads were compared."""

    items: list[Suggestion]
    compared: int


async def suggest_duplicates(database: Database, lead_id: UUID, rows_max: int) -> Suggestions:
    """Leads that may be the same person as this one, or as the one into which it was merged. Raises Problem 404 or 410."""
    async with database.read_transaction() as conn:
        connection = await connection_of(conn)
        root = (await get_merge_group(connection, lead_id))[0]
        (own,) = await lookup.find_leads(connection, [root])
        person = duplicates.person_of(own.lead)
        candidates = await duplicates.candidates(connection, own.lead)
        # A thousand pairs take some milliseconds, in which the loop has other things to do.
        ranked = await asyncio.to_thread(_rank, person, candidates)
        best = dict((await _exclude_parted(connection, root, ranked))[:rows_max])
        found = {one.lead.lead_id: one for one in await lookup.find_leads(connection, list(best))}
        return Suggestions([Suggestion(found[one], alike) for one, alike in best.items()], len(candidates))


def _rank(person: Person, candidates: Sequence[Person]) -> list[tuple[UUID, Similarity]]:
    alike = [
        (one.lead_id, found) for one in candidates if (found := score_pair(compare_people(person, one))) is not None
    ]
    return sorted(alike, key=lambda pair: (-pair[1].score, pair[0]))[:_RANKED_MAX]


async def _exclude_parted(
    connection: asyncpg.Connection, lead_id: UUID, ranked: list[tuple[UUID, Similarity]]
) -> list[tuple[UUID, Similarity]]:
    excluded = (
        await do_not_merge_pairs.find_pairs(connection, [lead_id, *(one for one, _ in ranked)]) if ranked else set()
    )
    return [(one, alike) for one, alike in ranked if frozenset((lead_id, one)) not in excluded]
