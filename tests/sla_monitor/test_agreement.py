"""The content of an SLA: invalid content is refused with a pointer, valid content reads in plain words."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.sla_monitor.conftest import bearer

from sla_monitor.api.examples import SLA
from sla_monitor.domain.calendars import ClosedDay
from sla_monitor.domain.checks import check_sla, find_warnings
from sla_monitor.domain.paper import describe_clause, render_paper
from sla_monitor.domain.sla import Sla
from sla_monitor.usecases.public_holidays import public_holidays


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example with the value at one pointer replaced; `...` removes it."""
    content = deepcopy(SLA)
    *parents, last = path.strip("/").split("/")
    node: Any = content
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    if value is ...:
        del node[last]
    elif isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return content


def findings(content: dict[str, Any]) -> dict[str, str]:
    return {found.pointer: found.message for found in check_sla(content, public_holidays)}


def test_example_has_no_findings():
    assert findings(SLA) == {}


@pytest.mark.parametrize(
    ("path", "value", "pointer", "words"),
    [
        ("/clauses/0/within/calendar", "factory", "/clauses/0/within/calendar", "there is no calendar factory"),
        ("/clauses/0/within/calendar", ..., "/clauses/0/within/calendar", "is missing"),
        ("/clauses/0/within/elapsed", "PT1H", "/clauses/0/within", "exactly one"),
        ("/clauses/0/within", {"elapsed": "PT4H", "calendar": "office"}, "/clauses/0/within/calendar", "allowed only"),
        ("/clauses/0/within/business", "PT0S", "/clauses/0/within/business", "greater than zero"),
        ("/clauses/0/within/business", "P1M", "/clauses/0/within/business", "months"),
        ("/clauses/0/within/business", "P3650D", "/clauses/0/within/business", "five years"),
        ("/clauses/0/within", {"business_days": 0, "calendar": "office"}, "/clauses/0/within/business_days", ""),
        ("/clauses/0/warn_at", [0.5, 1.0], "/clauses/0/warn_at/1", "less than 1"),
        ("/clauses/0/warn_at", [0.75, 0.5], "/clauses/0/warn_at", "ascend"),
        ("/clauses/1/key", "accept-mql", "/clauses/1/key", "appears twice"),
        ("/clauses/0/form", {}, "/clauses/0/form", "unknown key"),
        ("/clauses/0/from", {}, "/clauses/0/from", "exactly one"),
        ("/clauses/0/from", {"stage": "mql", "captured": True}, "/clauses/0/from", "exactly one"),
        ("/clauses/0/from/by", "sales", "/clauses/0/from/by", "allowed only with an activity"),
        ("/clauses/0/from", {"assigned": False}, "/clauses/0/from/assigned", ""),
        ("/clauses/0/to", {"stage": ["sal", "mql"]}, "/clauses/0/to/stage", "also a stage of from"),
        ("/clauses/0/to/decision", ["accept", "accept"], "/clauses/0/to/decision/1", "appears twice"),
        ("/clauses/0/to", {"activity": "Call"}, "/clauses/0/to/activity", ""),
        ("/clauses/0/obliges", "support", "/clauses/0/obliges", ""),
        ("/clauses", [], "/clauses", ""),
        ("/clauses/1/where/value", ["A9"], "/clauses/1/where/value/0", "grade"),
        ("/clauses/1/where/path", "attributes.", "/clauses/1/where/path", "is no path"),
        ("/clauses/1/where", {"path": "account.size", "op": "exists"}, "/clauses/1/where/path", "account data"),
        (
            "/clauses/1/where",
            {"any": [{"path": "activities.email.sent.count", "op": "gt", "value": 1}]},
            "/clauses/1/where/any/0/path",
            "not supported by this version",
        ),
        ("/clauses/1/from", {"captured": True}, "/clauses/1/where/path", "no grade yet"),
        ("/calendars/office/timezone", "America/Springfield", "/calendars/office/timezone", "IANA"),
        ("/calendars/office/timezone", "../etc/passwd", "/calendars/office/timezone", "IANA"),
        ("/calendars/office/week", {"monday": ["09:00-12:00"]}, "/calendars/office/week/monday", "weekday"),
        ("/calendars/office/week", {"mon": ["9-12"]}, "/calendars/office/week/mon/0", "range"),
        ("/calendars/office/week", {"mon": ["09:00-12:00", "11:00-13:00"]}, "/calendars/office/week/mon", "overlap"),
        (
            "/calendars/office/week",
            {"mon-fri": ["09:00-10:00"], "tue": ["11:00-12:00"]},
            "/calendars/office/week/tue",
            "already",
        ),
        (
            "/calendars/office/week",
            {"sun": ["20:00-04:00"], "mon-tue": ["03:00-12:00"]},
            "/calendars/office/week/sun",
            "over midnight that overlap",
        ),
        ("/calendars/office/week", {}, "/calendars/office/week", ""),
        ("/calendars/office/holidays/country", "XX", "/calendars/office/holidays/country", "no public holidays"),
        ("/calendars/office/holidays/subdivision", "QQ", "/calendars/office/holidays/subdivision", "no subdivision"),
        ("/calendars/office/holidays/country", ..., "/calendars/office/holidays/subdivision", "allowed only"),
        ("/calendars/office/holidays/extra", ["2027-02-30"], "/calendars/office/holidays/extra/0", "not a date"),
        (
            "/calendars/office/holidays/extra",
            ["2127-02-03"],
            "/calendars/office/holidays/extra/0",
            "not a date from 2000",
        ),
        ("/calendars/office/holidays/except", ["2027-12-24"], "/calendars/office/holidays/except/0", "extra day off"),
    ],
)
def test_invalid_content_is_refused_with_its_pointer(path, value, pointer, words):
    found = findings(changed(path, value))
    assert words in found.get(pointer, str(found)), found
    assert pointer in found


@pytest.mark.parametrize(
    ("terms", "pointer", "words"),
    [
        ({"kind": "freshness", "stage": ["mql", "sal"]}, "/clauses/1/stage", "string"),
        ({"kind": "volume", "stage": "mql", "per": "month", "at_least": 0}, "/clauses/1/at_least", "greater"),
        ({"kind": "volume", "stage": "mql", "per": "day", "at_least": 5}, "/clauses/1/per", "week"),
        ({"kind": "volume", "stage": "mql", "at_least": 5}, "/clauses/1/per", "required"),
        (
            {"kind": "rate", "of": {"stage": "sal"}, "over": {"stage": "sal"}, "per": "month", "at_least": 0.5},
            "/clauses/1/over",
            "always 1",
        ),
        (
            {"kind": "rate", "of": {"stage": "sal"}, "over": {}, "per": "month", "at_least": 0.5},
            "/clauses/1/over",
            "exactly one",
        ),
        (
            {
                "kind": "volume",
                "stage": "mql",
                "per": "month",
                "at_least": 5,
                "escalate": [{"at": 1, "reassign": True}],
            },
            "/clauses/1/escalate/0/reassign",
            "no single lead",
        ),
        ({"kind": "attempts", "from": {"stage": "sal"}, "count": 0, "of": "call.made"}, "/clauses/1/count", "greater"),
        (
            {"kind": "attempts", "from": {"stage": "sal"}, "count": 2, "of": "call.made", "until": {"stage": "sal"}},
            "/clauses/1/until/stage",
            "starts the clause",
        ),
        (
            {"kind": "attempts", "from": {"assigned": True}, "count": 2, "of": "call.made", "on_reassignment": "ends"},
            "/clauses/1/on_reassignment",
            "restarts, or moves",
        ),
        (
            {
                "kind": "attempts",
                "from": {"stage": "sal"},
                "count": 2,
                "of": "call.made",
                "paused_by": {"stage": "sal"},
            },
            "/clauses/1/paused_by/stage",
            "never run",
        ),
        (
            {
                "kind": "attempts",
                "from": {"stage": "sal"},
                "count": 2,
                "of": "call.made",
                "paused_by": {"activity": "a.b"},
            },
            "/clauses/1/paused_by",
            "belong together",
        ),
        (
            {"kind": "attempts", "from": {"stage": "sal"}, "count": 2, "of": "call.made", "escalate": [{"at": 1}]},
            "/clauses/1/escalate/0",
            "must notify",
        ),
        (
            {
                "kind": "attempts",
                "from": {"stage": "sal"},
                "count": 2,
                "of": "call.made",
                "escalate": [{"at": 99, "severity": "high"}],
            },
            "/clauses/1/escalate/0/at",
            "less than",
        ),
    ],
)
def test_clause_that_cannot_work_is_refused_with_its_pointer(terms, pointer, words):
    lead_terms = {} if "per" in terms or terms["kind"] == "volume" else {"within": {"elapsed": "P1D"}}
    found = findings(changed("/clauses/1", {"key": "promise", "obliges": "sales", **lead_terms, **terms}))
    assert words in found.get(pointer, str(found)), found
    assert list(found) == [pointer]


def test_unknown_zone_of_the_agreement_is_refused():
    assert "IANA" in findings(changed("/timezone", "Mars/Olympus"))["/timezone"]


def test_clause_that_reassigns_the_lead_is_valid():
    clause = {**SLA["clauses"][1], "escalate": [{"at": 1.0, "reassign": True}]}
    assert findings(changed("/clauses/1", clause)) == {}


def test_clause_of_unknown_kind_is_refused():
    assert list(findings(changed("/clauses/0/kind", "promise"))) == ["/clauses/0/kind"]


def test_calendar_closed_for_two_years_is_refused():
    sundays = [f"{year}-01-01" for year in range(2000, 2060)]
    content = changed("/calendars/office/week", {"sun": ["09:00-10:00"]})
    content["calendars"]["office"]["holidays"]["extra"] = sundays
    assert findings(content) == {}

    first = date(2027, 1, 3)
    content["calendars"]["office"]["holidays"]["extra"] = [
        (first + timedelta(weeks=week)).isoformat() for week in range(110)
    ]
    assert findings(content) == {"/calendars/office": "has no open time for two years"}


def test_clause_reads_as_a_sentence():
    accept, touch = Sla.model_validate(SLA).clauses
    assert describe_clause(accept) == (
        "Sales answers each lead that becomes MQL with the decision accept or reject within 4 business hours "
        "(office calendar). It counts as at risk after 50 % and 75 % of the time."
    )
    assert describe_clause(touch) == (
        "Sales answers each assignment of a lead to an owner with call.attempted or email.sent by sales within "
        "1 business hour (office calendar). It applies to leads where: grade is A1, A2 or B1."
    )


def test_paper_has_clauses_calendars_and_counting_rules():
    closed = [ClosedDay(date(2027, 4, 21), "San Jacinto Day", "public_holiday")]
    parts = render_paper(Sla.model_validate(SLA), {"office": closed})
    assert ("Wednesday 2027-04-21", "closed: San Jacinto Day") in parts[1].rows
    assert [part.heading for part in parts] == ["What sales owes", "Calendar office", "How it is counted"]
    assert ("public holidays of US, TX", "closed") in parts[1].rows


def test_holidays_are_those_of_the_region():

    assert public_holidays("US", None)[date(2027, 7, 4).toordinal()] == "Independence Day"
    assert date(2027, 11, 25).toordinal() in public_holidays("US", "TX")


def test_template_has_nothing_to_warn_of():
    content = yaml.safe_load((Path(__file__).parents[2] / "deploy/agreements/sla.yaml").read_bytes())
    assert check_sla(content, public_holidays) == []
    assert list(find_warnings(Sla.model_validate(content), public_holidays)) == []


def test_what_hardly_anybody_means_is_warned_of():
    content = changed("/calendars/office/week", {"mon-sun": ["00:00-23:59"]})
    content["calendars"]["office"]["holidays"]["except"] = ["2027-04-21", "2027-04-20"]
    minute, exception = find_warnings(Sla.model_validate(content), public_holidays)
    assert "closed for a minute each night" in minute
    assert "no holidays there: 2027-04-20." in exception


async def test_proposal_says_which_open_clocks_end_by_the_version_before(signed, make_lead, content):
    lead = make_lead()
    start = datetime(2027, 1, 4, 9, tzinfo=UTC)
    await signed.apply(lead.captured(start, size=100), lead.entered("mql", start))
    content["clauses"] = [clause for clause in content["clauses"] if clause["key"] != "accept-mql"]
    drafted = (await signed.http.post("/v1/sla/versions", json=content, headers=bearer("marketing"))).json()
    url = f"/v1/sla/versions/{drafted['version']}/propose"
    proposed = (await signed.http.post(url, headers=bearer("marketing"))).json()
    assert proposed["warnings"] == [
        "The clause accept-mql is dropped. Its 1 open clocks end by the version under which they began."
    ]
