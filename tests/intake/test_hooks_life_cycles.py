"""Tools merge and delete their records: a deletion acts on the person of the id that was deleted and on nobody else, and a merged id is no
deleted person.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count, permutations
from pathlib import Path
from typing import Any

import pytest
from tests.intake.hook_service import HookClient, outcomes, running_hook_client, until
from tests.intake.tools import SEGMENT, STANDARD, dump_json, mautic_contact

from accord.contracts.external_key import external_key

NOW = "2026-11-03T09:00:00+00:00"
_events = count(1)


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


def hubspot(type_: str, object_id: int, at: int = 1, **more: Any) -> dict[str, Any]:
    numbers = {"eventId": next(_events), "portalId": 1, "subscriptionId": 11, "attemptNumber": 0}
    return {**numbers, "occurredAt": 1764590000000 + at, "subscriptionType": type_, "objectId": object_id, **more}


def merge(into: int, *merged: int, **more: Any) -> dict[str, Any]:
    ids = {"primaryObjectId": merged[0], "mergedObjectIds": list(merged[1:]), "newObjectId": into}
    return hubspot("contact.merge", into, **{**ids, **more})


def mautic_deletion(number: int | None, email: str | None) -> bytes:
    contact = {**mautic_contact(email), "id": None}
    return dump_json({"mautic.lead_post_delete": [{"id": number, "contact": contact, "timestamp": NOW}]})


async def connect_hubspot(intake: HookClient, on_deletion: str = "erase") -> None:
    settings = {"on_deletion": on_deletion, "base_url": "http://127.0.0.1:1"}
    await intake.connect("hubspot", settings=settings, secrets={"token": "pat-none"})


async def person(intake: HookClient, source: str, *ids: str, email: str | None = None) -> str:
    """A lead with these ids of a source; its id."""
    address = email or f"{ids[0]}@initech.example"
    for id_ in ids:
        body = {"source": source, "external_id": id_, "email": address}
        found = (await intake.admin.post("/v1/leads", body)).raise_for_status().json()["lead_id"]
    return str(found)


async def make_due(intake: HookClient) -> None:
    await intake.rows("UPDATE hook_event SET due_at = recorded_at WHERE state = 'waiting'")


async def settle(intake: HookClient, *actions: str) -> None:
    """Have everything of these kinds done that waits."""

    async def look() -> bool:
        return not await intake.rows(
            "SELECT 1 FROM hook_event WHERE state = 'waiting' AND action = ANY ($1::text[])", list(actions)
        )

    async with intake.working():
        await until(look)


async def ids_of(intake: HookClient, lead_id: str) -> set[str]:
    found = (await intake.admin.get(f"/v1/leads/{lead_id}")).raise_for_status().json()
    return {one["id"] for one in found["person"]["external"]}


async def kinds_of(intake: HookClient, lead_id: str) -> list[str]:
    rows = await intake.rows("SELECT kind FROM activity WHERE lead_id::text = $1", lead_id)
    return [row["kind"] for row in rows]


async def status_of(intake: HookClient, lead_id: str) -> int:
    return (await intake.admin.get(f"/v1/leads/{lead_id}")).status_code


@pytest.mark.parametrize("mode", ["erase", "note"])
async def test_deletion_in_mautic_acts_on_the_id_that_was_deleted(intake: HookClient, mode: str) -> None:
    await intake.connect("mautic", settings={"on_deletion": mode})
    kept = await person(intake, "mautic", "1", email="maud@initech.example")
    gone = await person(intake, "mautic", "2", email="old-maud@initech.example")

    await intake.send("mautic", body=mautic_deletion(2, "maud@initech.example"))
    await settle(intake, "erase")

    assert (await status_of(intake, kept), await kinds_of(intake, kept)) == (200, [])
    if mode == "erase":
        assert await status_of(intake, gone) == 410
    else:
        assert await kinds_of(intake, gone) == ["record.deleted"]


async def test_deletion_of_an_unknown_id_touches_nobody(intake: HookClient) -> None:
    await intake.connect("mautic", settings={"on_deletion": "erase"})
    kept = await person(intake, "mautic", "1", email="maud@initech.example")

    await intake.send("mautic", body=mautic_deletion(99, "maud@initech.example"))
    await settle(intake, "erase")

    assert await status_of(intake, kept) == 200


async def test_address_counts_where_the_event_has_no_id(intake: HookClient) -> None:
    await intake.connect("mautic", settings={"on_deletion": "erase"})
    gone = await person(intake, "mautic", "1", email="maud@initech.example")

    await intake.send("mautic", body=mautic_deletion(None, "maud@initech.example"))
    await settle(intake, "erase")

    assert await status_of(intake, gone) == 410


async def test_deletion_of_one_of_several_ids_takes_the_id_away(intake: HookClient) -> None:
    await intake.connect("mautic", settings={"on_deletion": "erase"})
    lead = await person(intake, "mautic", "1", "2", email="maud@initech.example")
    await person(intake, "crm", "77", email="maud@initech.example")

    await intake.send("mautic", body=mautic_deletion(2, "maud@initech.example"))
    await settle(intake, "erase")

    assert await ids_of(intake, lead) == {"1", "77"}
    [*_, event] = await intake.events("lead.updated.v1")
    assert external_key("mautic", "2") not in event["state"]["external_keys"]
    again = await person(intake, "mautic", "2", email="other@initech.example")
    assert again != lead, "the id is free for another"

    await intake.send("mautic", body=mautic_deletion(1, None))
    await settle(intake, "erase")
    assert (await status_of(intake, lead), await status_of(intake, again)) == (410, 200)


BODIES = list(permutations(["merge", "deletion of the primary", "deletion of the other"]))


@pytest.mark.parametrize("order", BODIES, ids=["/".join(order) for order in BODIES])
@pytest.mark.parametrize("apart", [False, True], ids=["in one body", "in bodies of their own"])
async def test_ids_that_were_merged_in_hubspot_are_no_deletions(
    intake: HookClient, order: tuple[str, ...], apart: bool
) -> None:
    await connect_hubspot(intake)
    lead = await person(intake, "hubspot", "123", "124", email="hub@initech.example")
    events = {
        "merge": merge(125, 123, 124),
        "deletion of the primary": hubspot("contact.deletion", 123),
        "deletion of the other": hubspot("contact.deletion", 124),
    }
    for body in [[events[name]] for name in order] if apart else [[events[name] for name in order]]:
        assert set(outcomes(await intake.send("hubspot", body=dump_json(body)))) == {"waiting"}
    await settle(intake, "link")
    await make_due(intake)
    await settle(intake, "erase")

    assert await status_of(intake, lead) == 200
    assert await ids_of(intake, lead) == {"123", "124", "125"}
    notes = [row["error"] for row in await intake.rows("SELECT error FROM hook_event WHERE action = 'erase'")]
    assert notes == ["merged or restored"] * 2


async def test_deletion_waits_before_it_erases_and_survives_a_crash(intake: HookClient) -> None:
    await connect_hubspot(intake)
    lead = await person(intake, "hubspot", "123")
    await intake.send("hubspot", body=dump_json([hubspot("contact.deletion", 123)]))

    await intake.hook_work.work()
    assert await status_of(intake, lead) == 200, "a merge may still be told"
    await make_due(intake)
    await settle(intake, "erase")

    assert await status_of(intake, lead) == 410


async def test_merge_joins_two_leads_and_is_one_person_from_then_on(intake: HookClient) -> None:
    await connect_hubspot(intake)
    first, second = await person(intake, "hubspot", "123"), await person(intake, "hubspot", "124")

    await intake.send("hubspot", body=dump_json([merge(125, 123, 124), hubspot("contact.deletion", 123)]))
    await settle(intake, "link")
    await make_due(intake)
    await settle(intake, "erase")

    [lead] = await intake.leads()
    assert str(lead["lead_id"]) == first
    assert await ids_of(intake, first) == {"123", "124", "125"}
    [merged] = await intake.events("lead.merged.v1")
    assert merged["merged_lead_id"] == second
    [row] = await intake.rows("SELECT caller FROM merge")
    assert row["caller"] == "hook:hubspot"


async def test_leads_that_a_person_has_separated_are_not_merged_by_a_tool(intake: HookClient) -> None:
    await connect_hubspot(intake)
    await person(intake, "hubspot", "123")
    await person(intake, "hubspot", "124")
    await intake.send("hubspot", body=dump_json([merge(125, 123, 124)]))
    await settle(intake, "link")
    [row] = await intake.rows("SELECT merge_id FROM merge")
    (await intake.admin.post(f"/v1/merges/{row['merge_id']}/revert", None)).raise_for_status()

    await intake.send("hubspot", body=dump_json([merge(125, 123, 124)]))
    await settle(intake, "link")

    assert len(await intake.leads()) == 2


async def test_merge_waits_for_one_of_its_people(intake: HookClient) -> None:
    await connect_hubspot(intake)
    await intake.send("hubspot", body=dump_json([merge(125, 123, 124)]))
    await intake.hook_work.work()
    [waiting] = [event for event in await intake.events_of("hubspot", "waiting") if event["action"] == "link"]
    assert waiting["error"] == "no such lead yet"

    lead = await person(intake, "hubspot", "124")
    await make_due(intake)
    await settle(intake, "link")

    assert await ids_of(intake, lead) == {"123", "124", "125"}


async def test_contact_that_is_left_can_be_deleted(intake: HookClient) -> None:
    await connect_hubspot(intake)
    lead = await person(intake, "hubspot", "123")
    await intake.send("hubspot", body=dump_json([merge(123, 123, 124), hubspot("contact.deletion", 124)]))
    await settle(intake, "link")
    assert await ids_of(intake, lead) == {"123", "124"}

    await intake.send("hubspot", body=dump_json([hubspot("contact.deletion", 123, at=9)]))
    await make_due(intake)
    await settle(intake, "erase")

    assert await ids_of(intake, lead) == {"124"}, "124 leads to the same person, whom HubSpot may still name so"


async def test_deletion_that_is_only_noted_is_not_noted_of_a_merged_id(intake: HookClient) -> None:
    await connect_hubspot(intake, "note")
    lead, other = await person(intake, "hubspot", "123"), await person(intake, "hubspot", "7")
    deletions = [hubspot("contact.deletion", 124), hubspot("contact.deletion", 7)]
    await intake.send("hubspot", body=dump_json(deletions))
    await intake.send("hubspot", body=dump_json([merge(123, 123, 124)]))
    await settle(intake, "link")
    await make_due(intake)
    await settle(intake, "activity")

    assert (await kinds_of(intake, lead), await kinds_of(intake, other)) == ([], ["record.deleted"])


async def test_restored_contact_is_not_erased(intake: HookClient) -> None:
    await connect_hubspot(intake)
    lead = await person(intake, "hubspot", "123")
    body = [
        hubspot("contact.propertyChange", 123, at=1),
        hubspot("contact.deletion", 123, at=2),
        hubspot("contact.restore", 123, at=3),
    ]
    await intake.send("hubspot", body=dump_json(body))
    await make_due(intake)
    await settle(intake, "erase")
    assert await status_of(intake, lead) == 200

    late = [hubspot("contact.deletion", 123, at=5), hubspot("contact.propertyChange", 123, at=4)]
    await intake.send("hubspot", body=dump_json(late))
    await make_due(intake)
    await settle(intake, "erase")
    assert await status_of(intake, lead) == 410, "a change that is told late is no restoration"


async def test_privacy_deletion_erases_the_person_at_once_whatever_else_is_known(intake: HookClient) -> None:
    await connect_hubspot(intake)
    lead = await person(intake, "hubspot", "123", "124", email="hub@initech.example")
    body = [merge(125, 123, 124), hubspot("contact.privacyDeletion", 124)]
    await intake.send("hubspot", body=dump_json(body))
    await settle(intake, "erase")

    assert await status_of(intake, lead) == 410


@pytest.mark.parametrize("others", [{"traits": {"email": "b@initech.example"}}, {"anonymousId": "b"}])
async def test_deletion_in_segment_acts_on_its_user_alone(intake: HookClient, others: dict[str, Any]) -> None:
    await intake.connect("segment")
    gone, kept = await person(intake, "segment", "a"), await person(intake, "segment", "b")

    await intake.send("segment", body=dump_json({"type": "delete", "userId": "a", "messageId": "d", **others}))
    await settle(intake, "erase")

    assert (await status_of(intake, gone), await status_of(intake, kept)) == (410, 200)


async def test_erasure_of_a_typed_event_acts_on_its_id_alone(intake: HookClient) -> None:
    await intake.connect("standard-webhooks", settings={"types": {"person.gone": "erasure"}})
    gone = await person(intake, "standard-webhooks", "7")
    kept = await person(intake, "standard-webhooks", "8")
    data = {"id": 7, "email": "8@initech.example"}

    await intake.send("standard-webhooks", body=dump_json({**STANDARD, "type": "person.gone", "data": data}))
    await settle(intake, "erase")

    assert (await status_of(intake, gone), await status_of(intake, kept)) == (410, 200)


async def test_alias_makes_one_person_of_two_ids(intake: HookClient) -> None:
    await intake.connect("segment")
    first, second = await person(intake, "segment", "old"), await person(intake, "segment", "new")
    message = {"type": "alias", "previousId": "old", "userId": "new", "messageId": "a-1"}

    assert outcomes(await intake.send("segment", body=dump_json(message))) == ["waiting"]
    await settle(intake, "link")

    assert (await ids_of(intake, first), await status_of(intake, second)) == ({"old", "new"}, 200)
    assert len(await intake.leads()) == 1


async def test_alias_of_somebody_unknown_waits_and_makes_nobody(intake: HookClient) -> None:
    await intake.connect("segment")
    message = {"type": "alias", "previousId": "anonymous-1", "userId": "new", "messageId": "a-1"}
    await intake.send("segment", body=dump_json(message))
    await intake.hook_work.work()
    assert await intake.leads() == []

    lead = await person(intake, "segment", "new")
    await make_due(intake)
    await settle(intake, "link")
    assert await ids_of(intake, lead) == {"anonymous-1", "new"}

    await intake.send(
        "segment", body=dump_json({**message, "messageId": "a-2", "previousId": "unheard-1", "userId": "unheard-2"})
    )
    await intake.rows("UPDATE hook_event SET recorded_at = recorded_at - interval '2 days', due_at = recorded_at")
    await settle(intake, "link")
    [given_up] = [event for event in await intake.events_of("segment", "done") if event["error"]]
    assert given_up["error"] == "no-lead"


async def test_group_says_what_company_somebody_is_of(intake: HookClient) -> None:
    await intake.connect("segment")
    group = {
        "type": "group",
        "userId": SEGMENT["userId"],
        "groupId": "g-1",
        "messageId": "g-1",
        "traits": {
            "name": "Initech GmbH",
            "website": "https://initech.example",
            "employees": 320,
            "email": "info@x.example",
        },
    }
    nameless = {**group, "messageId": "g-2", "userId": None, "anonymousId": "a"}
    assert outcomes(await intake.send("segment", body=dump_json([group, nameless]))) == ["waiting", "ignored"]
    await intake.hook_work.work()
    assert await intake.leads() == []

    await intake.send("segment", body=dump_json({**SEGMENT, "traits": {"email": "ada@initech.example"}}))
    await make_due(intake)
    await settle(intake, "update")

    [lead] = await intake.leads()
    assert (lead["email"], lead["company"], lead["domain"]) == (
        "ada@initech.example",
        "Initech GmbH",
        "https://initech.example",
    )


MERGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"primaryObjectId": "123", "mergedObjectIds": ["124"], "newObjectId": "125"}, {"123", "124", "125"}),
    ({"primaryObjectId": 123, "mergedObjectIds": [124, 125, 125], "newObjectId": 125}, {"123", "124", "125"}),
    ({"primaryObjectId": 123.0, "mergedObjectIds": [124.0], "newObjectId": 125.0}, {"123", "124", "125"}),
    ({"primaryObjectId": None, "mergedObjectIds": [123], "newObjectId": 125}, {"123", "125"}),
    ({"primaryObjectId": 123, "mergedObjectIds": [124], "newObjectId": None}, {"123", "124"}),
    ({"primaryObjectId": 123, "mergedObjectIds": None, "newObjectId": 125}, {"123", "125"}),
    ({"primaryObjectId": 123, "mergedObjectIds": 124, "newObjectId": 125}, {"123", "125"}),
    ({"primaryObjectId": 123, "mergedObjectIds": [None, [], {}, True, ""], "newObjectId": 125}, {"123", "125"}),
    ({"primaryObjectId": 123, "mergedObjectIds": [], "newObjectId": 123}, {"123"}),
    ({"subscriptionType": "object.merge", "objectTypeId": "0-1"}, {"123", "124", "125"}),
]


@pytest.mark.parametrize(("said", "ids"), MERGES)
async def test_merge_of_any_form_leads_its_ids_to_one_person(
    intake: HookClient, said: dict[str, Any], ids: set[str]
) -> None:
    await connect_hubspot(intake)
    lead = await person(intake, "hubspot", "123")
    await intake.send("hubspot", body=dump_json([merge(125, 123, 124, **said)]))
    await settle(intake, "link")
    assert await ids_of(intake, lead) == ids


async def test_merge_of_a_great_many_is_bounded(intake: HookClient) -> None:
    await connect_hubspot(intake)
    await person(intake, "hubspot", "123")
    await intake.send("hubspot", body=dump_json([merge(125, 123, *range(1_000, 21_000))]))
    await settle(intake, "link")
    assert len(await intake.rows("SELECT 1 FROM identity_key WHERE kind = 'external'")) == 102


async def test_merge_of_a_company_is_none_of_a_contact(intake: HookClient) -> None:
    await connect_hubspot(intake)
    await person(intake, "hubspot", "123")
    others = [{"subscriptionType": "company.merge"}, {"subscriptionType": "object.merge", "objectTypeId": "0-2"}]
    body = [merge(125, 123, 124, **other) for other in others]
    assert outcomes(await intake.send("hubspot", body=dump_json(body))) == ["ignored", "ignored"]


DELETIONS: list[Any] = [
    {"id": "2"},
    {"id": 2.0, "contact": None},
    {"id": 2, "contact": {"id": 1, "fields": {"core": {"email": {"value": "1@initech.example"}}}}},
    {"id": 2, "lead": {"id": None, "fields": {"core": {"email": "1@initech.example"}}}},
    {"contact": {"id": 2}},
]


@pytest.mark.parametrize("said", DELETIONS)
async def test_deletion_in_mautic_of_any_form_erases_the_one_it_means(intake: HookClient, said: Any) -> None:
    await intake.connect("mautic", settings={"on_deletion": "erase"})
    kept, gone = await person(intake, "mautic", "1"), await person(intake, "mautic", "2")
    await intake.send("mautic", body=dump_json({"mautic.lead_post_delete": [{**said, "timestamp": NOW}]}))
    await settle(intake, "erase")
    assert (await status_of(intake, kept), await status_of(intake, gone)) == (200, 410)


async def test_ids_of_another_source_do_not_count(intake: HookClient) -> None:
    await intake.connect("mautic", settings={"on_deletion": "erase"})
    gone = await person(intake, "mautic", "2", email="maud@initech.example")
    await person(intake, "crm", "2", email="maud@initech.example")
    other = await person(intake, "crm", "3", email="other@initech.example")
    await intake.send("mautic", body=mautic_deletion(2, "other@initech.example"))
    await settle(intake, "erase")
    assert (await status_of(intake, gone), await status_of(intake, other)) == (410, 200)


@pytest.mark.parametrize("ids", [("a", "a"), (" a ", "a"), (7, "7"), (7.0, 7)])
async def test_alias_of_one_id_with_itself_changes_nothing(intake: HookClient, ids: tuple[Any, Any]) -> None:
    await intake.connect("segment")
    lead = await person(intake, "segment", str(ids[1]).strip())
    message = {"type": "alias", "previousId": ids[0], "userId": ids[1], "messageId": "a-1"}
    await intake.send("segment", body=dump_json(message))
    await settle(intake, "link")
    assert await ids_of(intake, lead) == {str(ids[1]).strip()}
