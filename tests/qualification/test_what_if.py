"""What a version would have made of leads: the fold under one version, sums that can be cut anywhere, the job, and its routes."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from copy import deepcopy
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant
from sqlalchemy import text
from tests.effort import cases
from tests.qualification import conftest
from tests.qualification.test_history import AGREED, DEFINITIONS, Histories
from uuid_utils.compat import uuid7

from accord.contracts.qualification_events import LeadStageChanged
from accord.terms.dimensions import UnknownDimension
from qualification.analysis.domain.groups import GROUPS_MAX, parse_dimensions
from qualification.analysis.domain.report import pick, report
from qualification.analysis.domain.what_if import (
    Comparison,
    SimulatedLead,
    Sums,
    for_entries,
    monday,
    simulate,
    week_name,
)
from qualification.analysis.queries import what_ifs
from qualification.analysis.service import what_if as usecase
from qualification.analysis.service.what_if import WhatIfWorker
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.handover import handover_stages, verdict
from qualification.definition.domain.rules import compile_definition
from qualification.lifecycle.domain.facts import VersionApplied

LEAN = [for_entries(rules, agreed) for rules, agreed in zip(DEFINITIONS, AGREED, strict=True)]
UNTIL = conftest.START + timedelta(days=90)


# --- The fold under one version ---


class Imaginings(Histories):
    """Whatever has happened to a few leads, in whatever order it was heard, seen with the eyes of one version."""

    @invariant()
    def what_lives_is_the_fold_of_the_log_from_zero(self) -> None:
        """Shown elsewhere; here: to look for entries alone is quicker and finds the same."""
        for lead_id, lead in self.memory.leads.items():
            if lead.erased or lead.merged_into or lead.profile is None:
                continue
            for rules, lean in zip(DEFINITIONS, LEAN, strict=True):
                seen = simulate(lead_id, self.memory.logs, lean, UNTIL)
                assert seen == simulate(lead_id, self.memory.logs, rules, UNTIL)
                log = self.memory.logs[lead_id]
                alone = log.entered_under == rules.version and not any(isinstance(f, VersionApplied) for f in log.facts)
                own = all(not hasattr(fact, "merged_lead_id") for fact in log.facts)
                if alone and own and not seen.ignored:
                    made = _fold(self, lead_id)
                    assert _plainly(seen.entries) == _plainly(made), "a version that was always in force"


def _fold(machine: Histories, lead_id: UUID) -> Any:
    from qualification.lifecycle.domain.history import fold

    return fold(lead_id, machine.memory.logs, machine.memory.versions, until=UNTIL).entries


def _plainly(entries: Any) -> list[tuple[str, datetime, int]]:
    return [(entry.stage, entry.occurred_at, entry.visit) for entry in entries if entry.occurred_at <= UNTIL]


TestImaginings = Imaginings.TestCase
TestImaginings.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


# --- Sums ---

STAGES = ["inquiry", "mql", "sal", "won", "disqualified"]
KINDS = {"won": "won", "disqualified": "disqualified"}
way = st.lists(st.tuples(st.sampled_from(STAGES), st.integers(0, 60)), max_size=4)
leads = st.lists(st.tuples(st.sampled_from(["website", "fair", None]), way, way), max_size=12)


def entries_of(steps: list[tuple[str, int]]) -> tuple[LeadStageChanged, ...]:
    return tuple(
        LeadStageChanged(
            lead_id=UUID(int=1),
            sequence=1,
            occurred_at=conftest.START + timedelta(days=day),
            recorded_at=conftest.START,
            definition_version=1,
            stage=stage,
            stage_kind=KINDS.get(stage, "open"),
            stage_rank=STAGES.index(stage),
            stage_owner="sales" if stage in ("sal", "won") else "marketing",
            visit=1,
            from_stage=None,
            from_since=None,
            cause="automatic",
            decision=None,
            decision_id=None,
            reason=None,
            actor=None,
        )
        for stage, day in steps
    )


def counted(some: list[Any], listed: Any = ()) -> Comparison:
    comparison = Comparison(conftest.START, UNTIL, ["mql", "sal"], dict(listed))
    for number, (source, did, would) in enumerate(some):
        imagined = SimulatedLead(entries_of(would), None, Counter(accept=1), Counter(win=number % 2))
        comparison.add(UUID(int=number + 1), (source,), entries_of(did), imagined)
    return comparison


@settings(max_examples=cases(60), deadline=None)
@given(leads, st.integers(0, 12))
def test_what_is_counted_of_leads_does_not_depend_on_where_they_are_parted(some, at):
    at -= at % 2  # which decisions are ignored goes by the number within a part
    whole, parts = counted(some).sums, Sums()
    first = counted(some[:at])
    parts.add(first.sums)
    parts.add(counted(some[at:], first.sums.listed.items()).sums)
    assert parts == whole
    made = report(whole, DEFINITIONS[0], parse_dimensions(["source"]), conftest.START, UNTIL)
    assert made.leads == len(some) == sum(group.leads for group in made.groups)
    for place, total in enumerate(made.total.stages):
        of_groups = [group.stages[place] for group in made.groups]
        for name in ("actual", "would", "both", "only_actual", "only_would", "moved"):
            assert getattr(total, name) == sum(getattr(one, name) for one in of_groups)
        assert total.only_actual + total.both == total.actual
        assert total.moved <= total.both


def test_groups_beyond_the_hundredth_are_counted_together():
    some = [(f"source-{number:03}", [("mql", 1)], []) for number in range(GROUPS_MAX + 20)]
    made = report(counted(some).sums, DEFINITIONS[0], parse_dimensions(["source"]), conftest.START, UNTIL)
    assert (len(made.groups), made.groups[-1].others, made.groups[-1].leads) == (GROUPS_MAX + 1, True, 20)
    assert (made.total.stages[1].actual, made.leads) == (GROUPS_MAX + 20, GROUPS_MAX + 20)


def test_the_measures_of_a_pick_are_those_of_the_books():
    # 40 let in, of which 20 have an outcome and 12 were won; of all, 50 have one and 15 were won.
    one = pick(40, 20, 12, 50, 15)
    assert (one.precision, one.recall, one.lift) == (0.6, 0.8, 2.0)
    nothing = pick(3, 0, 0, 0, 0)
    assert (nothing.let_in, nothing.precision, nothing.recall, nothing.lift) == (3, None, None, None)
    assert pick(3, 2, 0, 5, 0).lift is None


def test_weeks_go_by_the_name_that_iso_gives_them():
    assert week_name(monday(date(2027, 1, 3))) == "2026-W53"
    assert week_name(monday(date(2027, 1, 4))) == "2027-W01"


def test_marketing_hands_over_where_a_decision_leads_to_work_of_sales(rules):
    assert handover_stages(rules) == ("mql",)
    assert verdict(rules, "mql", "sal") == "accepted"
    assert verdict(rules, "mql", "recycled") == verdict(rules, "mql", "disqualified") == "rejected"
    assert verdict(rules, "sal", "recycled") is verdict(rules, "inquiry", "disqualified") is None


@pytest.mark.parametrize("names", [["stage"], ["source", "source"], ["attribute:"], ["attribute:a b"], ["owner"]])
def test_what_no_group_can_be_made_by_is_said(names):
    with pytest.raises(UnknownDimension):
        parse_dimensions(names)


# --- The job ---

ALL = {"from": "2024-01-01T00:00:00Z", "to": "2025-01-01T00:00:00Z"}


@pytest.fixture
async def past(stack, content, teller, day, auth):
    """Version 1 asks for 50 employees. Six leads: two won, one lost, one rejected, one open MQL, and one too small; version 2, a
    draft, asks for 100."""
    await stack.agree(content)
    tellers = {}
    for name, source, employees in (
        ("won large", "website", 250),
        ("won small", "fair", 60),
        ("lost", "website", 70),
        ("rejected", "fair", 300),
        ("open", "website", 90),
        ("tiny", "website", 10),
    ):
        about = tellers[name] = teller()
        about.source = source
        await stack.tell(about.captured(day(0), employee_count=employees), about.did("demo.requested", day(1)))
    bant = {"budget": True, "authority": "yes", "need": True, "timing": "q3"}
    deal = {"amount": {"amount": "10", "currency": "USD"}, "expected_close": "2024-06-01"}
    won = [("accept", {}), ("qualify", bant), ("open_opportunity", deal), ("win", deal)]
    for name, decisions in (
        ("won large", won),
        ("won small", won),
        ("lost", [("accept", {}), ("disqualify", {})]),
        ("rejected", [("reject", {})]),
    ):
        for number, (decision, fields) in enumerate(decisions):
            body: dict[str, Any] = {"decision": decision, "fields": fields, "occurred_at": day(2 + number).isoformat()}
            body["reason"] = {"disqualify": "not-a-fit", "reject": "no-timing"}.get(decision)
            at = f"/v1/leads/{tellers[name].lead_id}/decisions"
            assert (await stack.http.post(at, json=body, headers=auth("sales"))).status_code == 201
    stricter = deepcopy(content)
    stricter["stages"][1]["gate"]["when"]["all"][0]["value"] = 100
    drafted = await stack.http.post("/v1/definition/versions", json=stricter, headers=auth("marketing"))
    assert drafted.json()["version"] == 2
    return tellers


async def ask(stack, auth, version: int = 2, **body: Any) -> dict[str, Any]:
    asked = await stack.http.post(
        f"/v1/definition/versions/{version}/what-if", json=ALL | body, headers=auth("marketing")
    )
    assert asked.status_code == 202, asked.text
    assert asked.headers["location"] == f"/v1/what-ifs/{asked.json()['what_if_id']}"
    return asked.json()


async def answered(stack, auth, what_if_id: str) -> dict[str, Any]:
    answer = await stack.http.get(f"/v1/what-ifs/{what_if_id}", headers=auth("reader"))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def worked_out(stack, leads_max: int = 2) -> None:
    while await WhatIfWorker(stack.database, lambda: False).next_batch(
        leads_max
    ):  # each time as a process that knows nothing
        pass


async def all_rows(stack) -> list[Any]:
    tables = ("lead", "lead_fact", "activity", "stage_entry", "decision", "outbox")
    return [await stack.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


async def test_a_draft_says_what_it_would_have_done_and_does_nothing(stack, past, auth):
    before = await all_rows(stack)
    asked = await ask(stack, auth)
    assert (asked["state"], asked["by"], asked["progress"]["leads_done"]) == ("queued", ["source"], 0)
    await worked_out(stack)
    assert await all_rows(stack) == before
    done = await answered(stack, auth, asked["what_if_id"])
    assert (done["state"], done["progress"]["leads_done"], done["progress"]["leads_count"]) == ("done", 6, 6)
    made = done["report"]
    assert (made["leads"], made["known"], made["won"], made["base_rate"]) == (6, 3, 2, 0.6667)
    total = {row.pop("stage"): row for row in made["total"]["stages"]}
    assert total["mql"] == {"actual": 5, "would": 2, "both": 2, "only_actual": 3, "only_would": 0, "moved": 0}
    assert (total["sal"]["actual"], total["sal"]["would"]) == (3, 1)
    assert (total["disqualified"]["actual"], total["disqualified"]["would"]) == (
        1,
        1,
    )  # from any stage, so from inquiry too
    groups = {group["by"]["source"]: group for group in made["groups"]}
    fair = next(row for row in groups["fair"]["stages"] if row["stage"] == "mql")
    assert (groups["fair"]["leads"], fair["actual"], fair["would"]) == (2, 2, 1)
    (gate,) = made["picks"]
    assert gate == {
        "stage": "mql",
        "would": {"let_in": 2, "known": 1, "won": 1, "precision": 1.0, "recall": 0.5, "lift": 1.5},
        "actual": {"let_in": 5, "known": 3, "won": 2, "precision": 0.6667, "recall": 1.0, "lift": 1.0},
    }
    load = {row["stage"]: row for row in made["load"]}
    assert list(load) == ["mql", "sal", "sql", "opportunity"]
    assert (load["mql"]["hands_over"], load["mql"]["owner"]) == (True, "marketing")
    assert load["mql"]["weeks"] == [{"week": "2024-W02", "actual": 5, "would": 2}]
    decisions = {row.pop("decision"): row for row in made["decisions"]}
    assert decisions["accept"] == {"applied": 1, "ignored": 2}
    assert decisions["disqualify"] == {"applied": 1, "ignored": 0}
    assert made["summary"].startswith(
        "Of 6 leads captured from 2024-01-01 to 2025-01-01, 2 would have become MQL by version 2 and 5 did; 2 are the same leads"
    )
    assert "Too few outcomes are known (3)" in made["summary"]
    assert "Sales would have had 2.0 leads a week to decide about, 2 in the fullest, instead of 5.0." in made["summary"]


async def test_the_leads_that_differ_are_listed_with_both_moments(stack, past, auth):
    id_ = (await ask(stack, auth))["what_if_id"]
    await worked_out(stack)
    at = f"/v1/what-ifs/{id_}/leads"
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await stack.http.get(at, params={"limit": 4} | cursor, headers=auth("reader"))).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(found) == len({(row["stage"], row["lead_id"]) for row in found})
    mql = (await stack.http.get(at, params={"stage": "mql"}, headers=auth("reader"))).json()["items"]
    assert [row for row in found if row["stage"] == "mql"] == mql
    kept_out = {str(past[name].lead_id) for name in ("won small", "lost", "open")}
    assert {row["lead_id"] for row in mql} == kept_out
    assert {(row["did_enter_at"], row["would_enter_at"]) for row in mql} == {("2024-01-09T15:30:00Z", None)}
    report = (await answered(stack, auth, id_))["report"]
    assert {row["stage"]: row["listed"] for row in report["differing"]} == {
        row["stage"]: sum(found_["stage"] == row["stage"] for found_ in found) for row in report["differing"]
    }
    await stack.tell(past["open"].erased(UNTIL))
    assert len((await stack.http.get(at, params={"stage": "mql"}, headers=auth("reader"))).json()["items"]) == 2


async def test_the_version_that_was_in_force_would_have_done_what_happened(stack, past, teller, auth, day):
    other, never = past["tiny"], teller()
    merged = past["open"].merged(other.lead_id, day(8), employee_count=90)
    erased = teller()
    await stack.tell(
        merged, never.captured(day(400)), erased.captured(day(0), employee_count=90), erased.erased(day(1))
    )
    id_ = (await ask(stack, auth, version=1, by=["campaign", "attribute:employee_count"]))["what_if_id"]
    await worked_out(stack)
    made = (await answered(stack, auth, id_))["report"]
    assert (
        made["leads"] == 5
    )  # the merged one is part of its survivor, the erased one is gone, the late one is out of the period
    assert all((row["only_actual"], row["only_would"], row["moved"]) == (0, 0, 0) for row in made["total"]["stages"])
    assert all(row["ignored"] == 0 for row in made["decisions"])
    assert {tuple(group["by"].values()) for group in made["groups"]} == {
        ("spring", size) for size in ("250", "60", "70", "300", "90")
    }
    assert (await stack.http.get(f"/v1/what-ifs/{id_}/leads", headers=auth("reader"))).json()["items"] == []


_WORK = """
import asyncio, os
from accord.db import Database
from qualification.analysis.service.what_if import WhatIfWorker

async def main():
    imagining = WhatIfWorker(Database(os.environ["URL"], application_name="test"), lambda: False)
    while await imagining.next_batch(1):
        print("batch", flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_killed_amid_its_work_it_counts_nobody_twice(stack, past, auth, database_url, teller, day):
    some = [teller() for _ in range(150)]
    await stack.tell(*[about.captured(day(0), employee_count=90) for about in some])
    id_ = (await ask(stack, auth))["what_if_id"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORK, env={"URL": database_url}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(20):
        assert await process.stdout.readline() == b"batch\n"
    process.kill()
    await process.wait()
    amid = await answered(stack, auth, id_)
    assert amid["state"] == "running"
    assert 0 < amid["progress"]["leads_done"] < 156
    await worked_out(stack, 50)
    done = await answered(stack, auth, id_)
    assert (done["state"], done["progress"]["leads_done"], done["report"]["leads"]) == ("done", 156, 156)


async def test_while_one_process_works_another_does_nothing(stack, past, auth):
    id_ = (await ask(stack, auth))["what_if_id"]
    session = await stack.database.connect()
    assert await what_ifs.is_mine(session)
    imagining = WhatIfWorker(stack.database, lambda: False)
    assert not await imagining.work()
    assert (await answered(stack, auth, id_))["state"] == "queued"
    await session.close()
    while await imagining.work():
        pass
    assert (await answered(stack, auth, id_))["state"] == "done"


async def test_of_two_processes_that_work_at_once_who_is_overtaken_saves_nothing(stack, past, auth):
    id_ = (await ask(stack, auth))["what_if_id"]
    first, second = WhatIfWorker(stack.database, lambda: False), WhatIfWorker(stack.database, lambda: False)
    await first.next_batch()  # it begins
    results = await asyncio.gather(*[imagining.next_batch(1) for imagining in (first, second) for _ in range(3)])
    assert any(results)
    await worked_out(stack)
    done = await answered(stack, auth, id_)
    assert (done["progress"]["leads_done"], done["report"]["leads"]) == (6, 6)


async def test_a_batch_whose_time_is_up_is_saved_as_far_as_it_came(stack, past, auth, monkeypatch):
    monkeypatch.setattr(usecase, "BATCH_TIME_MAX_S", 0.0)
    id_ = (await ask(stack, auth))["what_if_id"]
    imagining = WhatIfWorker(stack.database, lambda: False)
    await imagining.next_batch()  # it begins
    await imagining.next_batch()
    assert (await answered(stack, auth, id_))["progress"]["leads_done"] == 1
    await worked_out(stack)
    done = await answered(stack, auth, id_)
    assert (done["state"], done["progress"]["leads_done"], done["report"]["leads"]) == ("done", 6, 6)


async def test_what_is_cancelled_ends_and_what_has_ended_is_not_cancelled(stack, past, auth):
    id_ = (await ask(stack, auth))["what_if_id"]
    imagining = WhatIfWorker(stack.database, lambda: False)
    assert await imagining.next_batch(1)
    assert await imagining.next_batch(1)
    for _ in range(2):
        cancelled = await stack.http.post(f"/v1/what-ifs/{id_}/cancel", headers=auth("marketing"))
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert not await imagining.next_batch(1)
    assert (await answered(stack, auth, id_))["report"] is None
    second = (await ask(stack, auth))["what_if_id"]
    await worked_out(stack)
    refused = await stack.http.post(f"/v1/what-ifs/{second}/cancel", headers=auth("marketing"))
    assert (refused.status_code, refused.json()["state"]) == (409, "done")
    page = (await stack.http.get("/v1/what-ifs", params={"limit": 1}, headers=auth("reader"))).json()
    rest = {"limit": 1, "cursor": page["next_cursor"]}
    assert [page["items"][0]["what_if_id"]] == [second]
    assert (await stack.http.get("/v1/what-ifs", params=rest, headers=auth("reader"))).json()["items"][0][
        "what_if_id"
    ] == id_


async def test_a_question_is_taken_once_and_only_so_many_wait_and_are_kept(stack, past, auth, monkeypatch):
    monkeypatch.setattr(usecase, "OPEN_MAX", 2)
    monkeypatch.setattr(usecase, "ENDED_MAX", 1)
    at, headers = "/v1/definition/versions/2/what-if", auth("marketing") | {"Idempotency-Key": "k"}
    first = await stack.http.post(at, json=ALL, headers=headers)
    again = await stack.http.post(at, json=ALL, headers=headers)
    assert (again.status_code, again.json(), again.headers["location"]) == (
        202,
        first.json(),
        first.headers["location"],
    )
    await ask(stack, auth)
    full = await stack.http.post(at, json=ALL, headers=auth("marketing"))
    assert full.status_code == 503
    assert "retry-after" in full.headers
    await worked_out(stack)
    await ask(stack, auth)
    kept = (await stack.http.get("/v1/what-ifs", headers=auth("reader"))).json()["items"]
    assert [one["state"] for one in kept] == ["queued", "done"]
    assert {row.what_if_id for row in await stack.rows("SELECT what_if_id FROM what_if_lead")} == {
        UUID(kept[1]["what_if_id"])
    }


async def test_a_what_if_that_cannot_be_worked_out_fails_and_takes_nothing_with_it(stack, past, auth):
    broken = (await ask(stack, auth))["what_if_id"]
    async with stack.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("UPDATE what_if SET content = '{}'"))
    sound = (await ask(stack, auth))["what_if_id"]
    await worked_out(stack)
    failed = await answered(stack, auth, broken)
    assert (failed["state"], failed["error"]) == (
        "failed",
        "This version does not pass the checks of this release.",
    )
    assert (await answered(stack, auth, sound))["state"] == "done"


async def test_a_question_that_does_not_fit_is_answered_with_the_place(stack, auth, content):
    await stack.agree(content)
    for body, pointer in (
        ({"from": "2025-01-01T00:00:00Z", "to": "2025-01-01T00:00:00Z"}, "/from"),
        ({"from": "1990-01-01T00:00:00Z", "to": "2025-01-01T00:00:00Z"}, "/from"),
        ({"from": 5}, "/from"),
        ({"to": "0001-01-02T00:00:00Z"}, "/to"),
        ({"from": "9999-12-31T23:59:59Z"}, "/from"),
        ({"to": "1970-01-01T00:00:00Z"}, "/from"),
        ({"by": ["owner"]}, "/by"),
        ({"by": ["attribute:a b"]}, "/by"),
        ({"by": ["source"] * 5}, "/by"),
        ({"until": "2025-01-01T00:00:00Z"}, "/until"),
    ):
        answer = await stack.http.post("/v1/definition/versions/1/what-if", json=body, headers=auth("marketing"))
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert await stack.rows("SELECT what_if_id FROM what_if") == []


async def test_who_may_not_and_what_is_not_there(stack, past, auth):
    at = "/v1/definition/versions/2/what-if"
    assert (await stack.http.post(at, json=ALL, headers=auth("reader"))).status_code == 403
    assert (await stack.http.post(at.replace("2", "9"), json=ALL, headers=auth("marketing"))).status_code == 404
    nobody = f"/v1/what-ifs/{uuid7()}"
    for path in (nobody, f"{nobody}/leads"):
        assert (await stack.http.get(path, headers=auth("reader"))).status_code == 404
        assert (await stack.http.get(path, headers=auth("admin"))).status_code == 403
    assert (await stack.http.post(f"{nobody}/cancel", headers=auth("marketing"))).status_code == 404


def test_a_gate_that_a_fall_can_open_is_still_watched(content):
    """`none` turns a comparison round, and an age goes its own way."""

    def watched(when: dict[str, Any]) -> Any:
        content["stages"][1]["gate"] = {"when": when}
        definition = Definition.model_validate(content)
        return for_entries(compile_definition(1, definition), definition).watches["inquiry"]

    engaged = {"path": "scores.engagement", "op": "gte", "value": 20}
    clicks = {"path": "activities.email.clicked.count", "op": "lt", "value": 2, "within": "P3D"}
    assert watched(engaged) == type(watched(engaged))()
    assert watched({"none": [engaged]}).marks
    assert watched({"path": "grade", "op": "in", "value": ["A1"]}).marks
    assert watched(clicks).windows
    assert not watched({"none": [clicks]}).windows
    assert watched({"path": "age", "op": "gte", "value": "P3D"}).ages


STALLING = r"(?:(?:a{0,100}){0,100}){0,5}q"
"""A pattern of a draft from before RE2, that the engine of then runs for seconds."""


async def write_stalling(stack, table: str) -> None:
    """Have it stand in what was written before, without a check."""
    leaf = {"path": "campaign.name", "op": "matches", "value": STALLING}
    written = f"UPDATE {table} SET content = jsonb_insert(content::jsonb, '{{stages,1,gate,when,all,0}}', $1::jsonb)"
    async with stack.database.write_transaction() as unit_of_work:
        connection = await unit_of_work.connection()
        await connection.execute(
            f"{written}::text WHERE version = 2" if table == "agreement_version" else written, json.dumps(leaf)
        )


async def test_draft_that_does_not_pass_the_checks_of_this_release_is_not_asked_about(stack, past, auth):
    await write_stalling(stack, "agreement_version")
    at = "/v1/definition/versions/2/what-if"
    asked = await stack.http.post(at, json=ALL, headers=auth("marketing"))
    assert (asked.status_code, asked.json()["type"]) == (409, "/problems/agreement-refused")
    assert await stack.rows("SELECT 1 FROM what_if") == []


async def test_what_if_from_before_the_checks_of_this_release_fails_and_says_so(stack, past, auth):
    id_ = (await ask(stack, auth))["what_if_id"]
    await write_stalling(stack, "what_if")
    await worked_out(stack)
    found = await answered(stack, auth, id_)
    assert (found["state"], found["error"]) == ("failed", "This version does not pass the checks of this release.")


async def test_what_is_asked_about_is_compiled_beside_the_loop(stack, past, auth, monkeypatch):
    threads = []

    def compiled(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return compile_definition(*given)

    monkeypatch.setattr(usecase, "compile_definition", compiled)
    await ask(stack, auth)
    await worked_out(stack, 50)
    assert threads
    assert threading.main_thread() not in threads
