"""The data policy over HTTP: drafts with their flaws, what a proposal warns of, shared phones, and the report behind each verdict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from tests.intake.conftest import Running

from accord.agreements import ActiveCache, AgreementStore
from accord.batching import TimeBudget
from accord.db import Database
from intake.capture.api.answers import encode_capture
from intake.capture.service.capture import Capture
from intake.leads.domain.submission import Submission
from intake.leads.service.submissions import CaptureRequest
from intake.policy.domain.policy import parse_policy
from intake.policy.domain.report import Effect, Tally
from intake.policy.queries import StoredSubmission
from intake.policy.service import report
from intake.policy.service.agreement import POLICY, compile_policy
from intake.policy.service.report import _PreviewEvaluation

PEOPLE = [
    {"source": "website", "email": f"person{n}@initech.example", "attributes": {"employee_count": 10 * n}}
    for n in range(10)
]


def policy(*parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": "policy",
        "title": "What we ask",
        "attributes": {"employee_count": {"type": "integer"}, "country": {"type": "country"}},
        "parameters": list(parameters),
        **more,
    }


SIZE = {"key": "size", "rule": "range", "attribute": "employee_count", "min": 50, "consequence": "flag", "weight": 2}
MAIL = {"key": "mail", "rule": "email", "consequence": "reject", "weight": 3}
COUNTRY = {
    "key": "country",
    "rule": "one_of",
    "attribute": "country",
    "values": ["US", "NO"],
    "consequence": "quarantine",
    "missing": "pass",
}


async def proposed(accord: Running, content: dict[str, Any]) -> tuple[int, list[str]]:
    """A version that is put up for signature, and its warnings."""
    draft = (await accord.marketing.post("/v1/policy/versions", content)).raise_for_status().json()
    answer = await accord.marketing.post(f"/v1/policy/versions/{draft['version']}/propose", None)
    return draft["version"], answer.raise_for_status().json()["warnings"]


async def test_a_draft_with_flaws_is_refused_with_a_pointer_for_each(accord: Running) -> None:
    content = policy(
        {**SIZE, "min": 9, "max": 1},
        {"key": "rating", "rule": "dnb_rating", "attribute": "dnb", "appraisal_max": 9, "consequence": "flag"},
        {"key": "some", "rule": "any_of", "of": [{"rule": "pattern", "field": "title", "pattern": "("}], "consequence": "flag"},
        {**COUNTRY, "values": ["US", "Freedonia"]},
        phones_shared="maybe",
    )  # fmt: skip
    answer = await accord.marketing.post("/v1/policy/versions", content)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/agreement-refused"
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "/parameters/0",
        "/parameters/1/appraisal_max",
        "/parameters/2/of/0/pattern",
        "/phones_shared",
    }
    assert await accord.rows("SELECT * FROM agreement_version") == []


async def test_policy_is_returned_as_written_in_yaml_or_json(accord: Running) -> None:
    text = """
kind: policy
title: What we ask
attributes: {industry: {type: string}, country: {type: country}}
parameters:
  - {key: vertical, rule: one_of, attribute: industry, match: naics, values: ["31-33", 51, Retail Trade], consequence: flag}
  - {key: country, rule: one_of, attribute: country, values: [US, NO, deu], consequence: flag, weight: 1.5}
  - {key: fresh, rule: fresh, within: P2W, consequence: flag}
  - {key: consent, rule: consent, basis: [consent], consequence: flag, missing: pass}
phones_shared: true
"""
    http = accord.marketing.http
    answer = await http.post("/v1/policy/versions", content=text.encode(), headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 201, answer.text
    as_json = await accord.marketing.post("/v1/policy/versions", answer.json()["content"])
    content = answer.json()["content"]
    assert content == as_json.json()["content"]
    assert answer.json()["content_sha256"] == as_json.json()["content_sha256"]
    assert content["parameters"][0]["values"] == ["31-33", 51, "Retail Trade"]
    assert content["parameters"][1]["values"] == ["US", "NO", "deu"]
    assert content["parameters"][2]["within"] == "P2W"
    assert content == {**yaml.safe_load(text.replace("NO", "'NO'")), "phones_shared": True}
    paper = await http.get("/v1/policy/versions/1/paper")
    assert "31-33 (Manufacturing); 51 (Information); Retail Trade" in paper.text
    assert "Several people may share a phone number" in paper.text


async def test_proposal_reports_effect_on_past_submissions(accord: Running) -> None:
    await accord.sign(policy(SIZE, MAIL))
    results = (await accord.marketing.post("/v1/leads:batch", PEOPLE)).json()["results"]
    assert {row["verdict"] for row in results} == {"accepted", "flagged"}
    version, warnings = await proposed(accord, policy({**SIZE, "consequence": "reject", "min": 95}))
    assert warnings == [
        (
            "Of the 10 submissions of the last 30 days, this policy would have refused 100 % (in force now: 0 %)"
            " and quarantined 0 % (in force now: 0 %)."
        ),
        "Under this policy no record of them would have become a lead by itself.",
        "None of them meets the parameter size.",
    ]
    effect = (await accord.sales.get(f"/v1/policy/versions/{version}/effect")).raise_for_status().json()
    assert effect["warnings"] == warnings
    assert effect["proposed"] == {"judged": 10, "accepted": 0, "flagged": 0, "quarantined": 0, "rejected": 10}
    assert effect["in_force"] == {"judged": 10, "accepted": 5, "flagged": 5, "quarantined": 0, "rejected": 0}
    assert effect["parameters"] == [{"parameter": "size", "applies": 10, "failed": 10}]
    assert (effect["sample"], effect["unread"]) == ("all", 0)


async def test_a_proposal_with_nothing_to_look_back_at_warns_of_nothing(accord: Running) -> None:
    assert (await proposed(accord, policy(MAIL)))[1] == []


async def test_what_came_long_ago_is_not_looked_at(accord: Running) -> None:
    await accord.marketing.post("/v1/leads:batch", PEOPLE)
    await accord.rows("UPDATE submission SET recorded_at = recorded_at - interval '40 days'")
    version, warnings = await proposed(accord, policy({**SIZE, "consequence": "reject", "min": 95}))
    assert warnings == []
    effect = (await accord.sales.get(f"/v1/policy/versions/{version}/effect", days="60")).json()
    assert effect["proposed"]["judged"] == 10


async def test_preview_evaluates_each_submission_at_its_own_time(accord: Running) -> None:
    then = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    await accord.marketing.post("/v1/leads:batch", [{**PEOPLE[1], "occurred_at": then}, PEOPLE[2]])
    fresh = {"key": "fresh", "rule": "fresh", "within": "P2D", "consequence": "quarantine"}
    _, (warning, *more) = await proposed(accord, policy(fresh))
    assert "refused 0 % and quarantined 50 %" in warning
    assert more == []


async def test_preview_evaluates_hook_events_and_imported_rows(accord: Running, database_url: str) -> None:
    database = Database(database_url, application_name="test")
    policies = AgreementStore(database, POLICY)
    capture = Capture(database, ActiveCache(policies, compile_policy), encode_capture)
    people = [Submission.model_validate(person) for person in PEOPLE]
    answers = await capture.apply([CaptureRequest(one, '{"event": "signed-up"}', "hook:form") for one in people])
    await database.dispose()
    assert len(answers) == len(PEOPLE)
    _, (warning, *_) = await proposed(accord, policy({**SIZE, "consequence": "reject"}))
    assert (
        warning == "Of the 10 submissions of the last 30 days, this policy would have refused 50 % and quarantined 0 %."
    )


async def test_preview_counts_unreadable_submissions(accord: Running) -> None:
    await accord.marketing.post("/v1/leads:batch", PEOPLE[:4])
    await accord.rows(
        "UPDATE submission SET content = '{\"event\": \"a tool''s own\"}' WHERE submission_id ="
        " (SELECT submission_id FROM submission LIMIT 1)"
    )
    _, (warning, *_) = await proposed(accord, policy(MAIL))
    assert warning.startswith("Of the 3 submissions")
    assert "1 more are not kept in a form that can be judged again" in warning


async def test_effect_reports_partial_result_when_time_is_up(accord: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await accord.marketing.post("/v1/leads:batch", PEOPLE)
    version, _ = await proposed(accord, policy(SIZE, MAIL))
    monkeypatch.setattr(report, "PREVIEW_TIME_MAX_S", 0.0)
    effect = (await accord.sales.get(f"/v1/policy/versions/{version}/effect")).raise_for_status().json()
    assert (effect["sample"], effect["proposed"]["judged"]) == ("newest", 0)


def test_judging_stops_when_the_request_that_waits_is_cancelled() -> None:
    class Portion(list[StoredSubmission]):
        """The request is cancelled while the third is judged."""

        def __iter__(self) -> Iterator[StoredSubmission]:
            for number in range(10):
                if number == 3:
                    budget.__exit__()
                yield StoredSubmission(UUID(int=number), datetime.now(UTC), None)

    judges = _PreviewEvaluation.of(policy(SIZE), None)
    with TimeBudget(3_600.0) as budget:
        assert judges.evaluate(Portion(), budget) == 3
    assert judges.unread == 3


async def test_only_so_many_wait_for_a_preview(accord: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    version, _ = await proposed(accord, policy(SIZE))
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> Effect:
        started.set()
        await go_on.wait()
        tally = Tally(parse_policy(policy(SIZE)))
        return Effect(30, True, 0, tally, None)

    monkeypatch.setattr(report, "preview_effect", slow)
    ask = partial(accord.sales.get, f"/v1/policy/versions/{version}/effect")
    asked = [asyncio.create_task(ask()) for _ in range(6)]
    await started.wait()
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert [(task.result().status_code, task.result().json()["type"]) for task in done] == [
        (503, "/problems/overloaded")
    ]
    go_on.set()
    assert sorted(answer.status_code for answer in await asyncio.gather(*asked)) == [200] * 5 + [503]


async def test_a_policy_with_too_many_patterns_is_refused_with_the_place(accord: Running) -> None:
    title = {"rule": "pattern", "field": "title", "pattern": "(?:(?:a{0,100}){0,100}){0,5}q", "consequence": "flag"}
    answer = await accord.marketing.post(
        "/v1/policy/versions", policy(*({**title, "key": f"title-{number}"} for number in range(65)))
    )
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "pointer": "/parameters/64/pattern",
            "message": "a document has at most 64 patterns, and this has 65",
        }
    ]


async def test_the_effect_of_no_version_is_not_found(accord: Running) -> None:
    assert (await accord.marketing.get("/v1/policy/versions/7/effect")).status_code == 404
    assert (await accord.marketing.get("/v1/policy/versions/0/effect")).status_code == 422
    assert (await accord.marketing.get("/v1/policy/versions/1/effect", days="0")).status_code == 422


async def test_quality_report_explains_score_without_values(accord: Running) -> None:
    await accord.sign(policy(SIZE, MAIL, COUNTRY, score_min=0.5))
    taken = (await accord.marketing.post("/v1/leads", {**PEOPLE[1], "last_name": "Byron"})).json()
    report = (await accord.caller("public").get(f"/v1/submissions/{taken['submission_id']}/quality")).json()
    assert (report["verdict"], report["score"], report["score_min"], report["policy_version"]) == (
        "flagged",
        0.6,
        0.5,
        1,
    )
    assert (report["weight_passed"], report["weight_applicable"]) == (3, 5)
    assert [(one["parameter"], one["outcome"], one["reason"]) for one in report["parameters"]] == [
        ("size", "failed", "employee_count is below 50"),
        ("mail", "passed", None),
        ("country", "not_applicable", None),
    ]
    assert report["lead_id"] == taken["lead_id"]
    text = str(report).lower()
    assert "byron" not in text
    assert "person1" not in text


async def test_a_report_stays_with_the_version_that_judged(accord: Running) -> None:
    await accord.sign(policy(SIZE, MAIL))
    taken = (await accord.marketing.post("/v1/leads", PEOPLE[1])).json()
    await accord.sign(policy(MAIL))
    report = (await accord.marketing.get(f"/v1/submissions/{taken['submission_id']}/quality")).json()
    assert report["policy_version"] == 1
    assert [one["parameter"] for one in report["parameters"]] == ["size", "mail"]


async def test_a_refused_record_has_a_report_too(accord: Running) -> None:
    await accord.sign(policy(MAIL))
    problem = (await accord.marketing.post("/v1/leads", {"source": "a", "email": "x@mailinator.com"})).json()
    report = (await accord.marketing.get(f"/v1/submissions/{problem['submission_id']}/quality")).json()
    assert (report["verdict"], report["lead_id"], report["score"]) == ("rejected", None, 0.0)
    assert report["parameters"][0]["reason"] == "email is at a disposable domain"


async def test_without_a_policy_there_is_nothing_to_report(accord: Running) -> None:
    taken = (await accord.marketing.post("/v1/leads", PEOPLE[1])).json()
    report = (await accord.marketing.get(f"/v1/submissions/{taken['submission_id']}/quality")).json()
    assert (report["verdict"], report["score"], report["parameters"]) == ("unchecked", None, [])
    assert (await accord.marketing.get(f"/v1/submissions/{uuid4()}/quality")).status_code == 404


async def test_shared_phone_is_stored_and_identifies_nobody(accord: Running) -> None:
    await accord.sign(policy(MAIL, phones_shared=True))
    one = (await accord.marketing.post("/v1/leads", {**PEOPLE[1], "phone": "+12025550143"})).json()
    two = (await accord.marketing.post("/v1/leads", {**PEOPLE[2], "phone": "+1 202 555 0143"})).json()
    assert (one["outcome"], two["outcome"]) == ("created", "created")
    assert one["lead_id"] != two["lead_id"]
    person = (await accord.marketing.get(f"/v1/leads/{two['lead_id']}")).json()["person"]
    assert person["phone"] == "+12025550143"
    assert await accord.rows("SELECT * FROM identity_key WHERE kind = 'phone'") == []
    alone = await accord.marketing.post("/v1/leads", {"source": "a", "phone": "+12025550143"})
    assert alone.status_code == 422
    assert alone.json()["errors"][0]["pointer"] == "/phone"
    by_id = await accord.marketing.post("/v1/leads", {"source": "a", "phone": "+12025550143", "external_id": "7"})
    assert by_id.json()["type"] == "/problems/rejected-by-policy", "the policy asks for an address"


@pytest.mark.parametrize("given_at", [None, "2020-01-01T00:00:00Z"])
async def test_consent_is_evaluated_by_when_it_was_given(accord: Running, given_at: str | None) -> None:
    rule = {"key": "consent", "rule": "consent", "basis": ["consent"], "within": "P30D", "consequence": "quarantine"}
    await accord.sign(policy(rule))
    consent = {"basis": "consent"} | ({"given_at": given_at} if given_at else {})
    taken = (await accord.marketing.post("/v1/leads", {**PEOPLE[1], "consent": consent})).json()
    assert taken["verdict"] == ("quarantined" if given_at else "accepted")


@pytest.mark.parametrize("pattern", ["(?x) v p", "[a-z&&[^aeiou]]+", r"\u0076p", r"[\p{L} ]{2,50}"])
async def test_active_policy_from_before_re2_still_evaluates(accord: Running, pattern: str) -> None:
    title = {"key": "title", "rule": "pattern", "field": "title", "pattern": "vp", "consequence": "flag"}
    await accord.sign(policy(title))
    await accord.rows("UPDATE agreement_version SET content = replace(content, '\"vp\"', $1)", json.dumps(pattern))
    for said, verdict in (("vp", "accepted"), ("e1", "flagged")):
        sent = {"source": "website", "email": f"{said}@initech.example", "title": said}
        answer = await accord.marketing.post("/v1/leads", sent)
        assert (answer.status_code, answer.json()["verdict"]) == (201, verdict)
    assert escape(pattern) in (await accord.marketing.get("/v1/policy/versions/1/paper")).text
    again = await accord.marketing.post(
        "/v1/policy/versions", (await accord.marketing.get("/v1/policy")).json()["content"]
    )
    assert (again.status_code, again.json()["errors"][0]["pointer"]) == (422, "/parameters/0/pattern")
