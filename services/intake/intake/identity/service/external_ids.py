"""Changes which ids of a tool lead to which person, as the tool itself merges and deletes its records."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from msgspec.structs import replace

from accord.contracts.external_key import external_key
from accord.db import UnitOfWork
from accord.ids import new_id
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import EXTERNAL_KEYS_MAX
from intake.leads.domain.unit_of_work import CaptureUnitOfWork
from intake.leads.queries import leads as lead_queries
from intake.leads.queries import lookup
from intake.leads.service.unit_of_work import DoNotMergePairs, decide_with_exclusions, save_lead_changes


async def link_ids(unit_of_work: UnitOfWork, source: str, ids: Sequence[str], caller: str) -> UUID | None:
    """Have all of these ids of a source lead to one person: leads that some of them name are merged, unless a person has separated
    them, and the others are theirs too. None where no id names a lead. Raises what `retry_on_conflict` retries."""
    connection, now = await unit_of_work.connection(), unit_of_work.now
    named: dict[IdentityKey, tuple[str, str]] = {("external", external_key(source, id_)): (source, id_) for id_ in ids}
    keys, leads = await lead_queries.lock_matches(connection, named)
    if not leads:
        return None

    def decide(do_not_merge: DoNotMergePairs) -> tuple[CaptureUnitOfWork, UUID]:
        changes = CaptureUnitOfWork(now, dict(leads), dict(keys), do_not_merge)
        survivor, *others = [leads[lead_id] for lead_id in dict.fromkeys(keys[key] for key in named if key in keys)]
        for other in others:
            if frozenset((survivor.lead_id, other.lead_id)) not in changes.do_not_merge:
                survivor = changes.merge(survivor, other, new_id(), None, caller)
        taken = [key for key in named if key not in keys]
        changes.external |= {key[1]: named[key] for key in taken}
        known = dict.fromkeys((*survivor.external_keys, *(value for _, value in taken)))
        after = replace(survivor, external_keys=tuple(known)[:EXTERNAL_KEYS_MAX])
        changes.correct(survivor, after, dropped=(), taken=taken)
        return changes, survivor.lead_id

    changes, lead_id = await decide_with_exclusions(connection, decide)
    await save_lead_changes(connection, changes, now)
    unit_of_work.publish(*changes.events)
    return lead_id


async def remove_id(unit_of_work: UnitOfWork, source: str, id_: str) -> UUID | None:
    """Take an id of a source from its lead, which the source knows by another id too; the lead. None where it is the last of the source's,
    or nobody's. Raises what `retry_on_conflict` retries."""
    connection = await unit_of_work.connection()
    key: IdentityKey = ("external", external_key(source, id_))
    keys, leads = await lead_queries.lock_matches(connection, [key])
    if not leads:
        return None
    lead = leads[keys[key]]
    details = await lookup.load_details(connection, lead)
    if not any(one["source"] == source and one["id"] != id_ for one in details.external):
        return None
    changes = CaptureUnitOfWork(unit_of_work.now, leads, keys)
    after = replace(lead, external_keys=tuple(value for value in lead.external_keys if value != key[1]))
    changes.correct(lead, after, dropped=[key], taken=())
    await save_lead_changes(connection, changes, unit_of_work.now)
    unit_of_work.publish(*changes.events)
    return lead.lead_id
