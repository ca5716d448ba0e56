"""A made-up half year of one company's leads: who came, what they did, what sales decided.

Pure: the same seed and moment give the same sample. Sales keeps every promise of the template SLA, but for `MISSED` leads: an
acceptance follows its MQL within the hour, and a calendar that is closed in between only gives more time. Marketing thanks
who attended a webinar, but for one in `UNTHANKED_EVERY`, and leaves what is recycled where it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

LEADS_DEFAULT = 360
HISTORY = timedelta(days=180)
FRESH = 12
"""Leads that became MQL in the last minutes: their clocks are still open."""
MISSED = 2
"""Leads that sales answered two weeks late."""
UNTHANKED_EVERY = 9
"""Of so many leads of a webinar, one is thanked ten days late."""
DROPPED = 4
"""Records that the data policy refuses: nobody could be reached."""

_SOURCES = (("website", 38), ("webinar", 18), ("paid-search", 20), ("partner", 12), ("referral", 12))
_CAMPAIGNS = {
    "website": ("pricing", "organic"),
    "webinar": ("autumn-series", "webinar"),
    "paid-search": ("crm-words", "cpc"),
    "partner": ("alliance", "partner"),
    "referral": ("friends", "referral"),
}
_WIN_RATE = {"website": 0.42, "webinar": 0.38, "paid-search": 0.25, "partner": 0.5, "referral": 0.6}
_FIRST = (
    "Ada Grace Alan Edsger Barbara Tony Donald Frances Ken Radia Leslie Margaret Niklaus Sophie Dennis Hedy".split()
)
_LAST = "Byron Hopper Turing Dijkstra Liskov Hoare Knuth Allen Thompson Perlman Lamport Hamilton Wirth Wilson".split()
_COMPANIES = (
    "Initech Globex Hooli Umbrella Vehement Massive Stark Wayne Wonka Acme Cyberdyne Tyrell Soylent Gringotts".split()
)
_INDUSTRIES = ("541511", "541512", "522110", "334111", "311812", "518210")
_LINES = ("software", "finance", "manufacturing")

_FOLLOW_UPS = (
    ("call.attempted", timedelta(hours=2)),
    ("email.sent", timedelta(days=1)),
    ("call.attempted", timedelta(days=3)),
)
"""What sales does after it has accepted a lead."""


@dataclass(frozen=True)
class Touch:
    """One activity of a lead, as `POST /v1/activities:batch` takes it."""

    kind: str
    by: str
    at: datetime
    actor_kind: str | None = None


@dataclass(frozen=True)
class Step:
    """One decision of sales about a lead, as `POST /v1/decisions:batch` takes it."""

    decision: str
    at: datetime
    reason: str | None = None
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleLead:
    """One person's submission, and what follows it in time order."""

    submission: dict[str, object]
    touches: tuple[Touch, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def source(self) -> str:
        return str(self.submission["source"])

    @property
    def is_accepted(self) -> bool:
        """Whether the template policy lets it in."""
        return not str(self.submission["email"]).endswith("@mailinator.com")

    @property
    def external_id(self) -> str:
        return str(self.submission["external_id"])


T = TypeVar("T", Touch, Step)


def make_sample(seed: int, now: datetime, leads: int = LEADS_DEFAULT) -> list[SampleLead]:
    """The leads in the order of their arrival. Nothing lies after `now`."""
    rng = random.Random(seed)
    history = leads - FRESH - DROPPED
    arrivals = sorted(now - timedelta(days=1) - HISTORY * rng.random() for _ in range(history))
    missed = set(rng.sample([n for n, at in enumerate(arrivals) if now - at > timedelta(days=40)], MISSED))
    made = [_make_past_lead(rng, n, at, now, missed=n in missed) for n, at in enumerate(arrivals)]
    made += [_make_fresh_lead(rng, history + n, now) for n in range(FRESH)]
    made += [_make_unreachable_lead(rng, history + FRESH + n, now) for n in range(DROPPED)]
    return made


def _make_submission(rng: random.Random, n: int, at: datetime, employees: int) -> dict[str, object]:
    source = rng.choices([name for name, _ in _SOURCES], [weight for _, weight in _SOURCES])[0]
    first, last, company = rng.choice(_FIRST), rng.choice(_LAST), rng.choice(_COMPANIES)
    domain = f"{company.lower()}-{n % 90}.example.com"
    campaign, medium = _CAMPAIGNS[source]
    return {
        "source": source,
        "external_id": f"demo-{n:05d}",
        "email": f"{first}.{last}.{n}@{domain}".lower(),
        "first_name": first,
        "last_name": last,
        "company": f"{company} {n % 90}",
        "attributes": {
            "employee_count": employees,
            "industry": rng.choice(_INDUSTRIES),
            "country": rng.choices(("US", "CA", "GB", "DE"), (60, 15, 15, 10))[0],
            "line_of_business": rng.choice(_LINES),
            "dnb_rating": rng.choice(("5A1", "4A2", "3A3", "2A2")),
            "bbb_rating": rng.choice(("A+", "A", "B", "A-")),
        },
        "campaign": {"name": campaign, "medium": medium},
        "occurred_at": at.isoformat(),
    }


def _make_past_lead(rng: random.Random, n: int, at: datetime, now: datetime, *, missed: bool) -> SampleLead:
    interested = missed or rng.random() < 0.55
    employees = rng.randint(60, 2000) if interested or rng.random() < 0.6 else rng.randint(3, 49)
    submission = _make_submission(rng, n, at, employees)
    touches = [Touch("page.viewed", "lead", at + _minutes(rng, 1, 30))]
    if submission["source"] == "webinar":
        thanked_at = at + (timedelta(days=10) if n % UNTHANKED_EVERY == 0 else timedelta(hours=2))
        touches += [Touch("webinar.attended", "lead", at), Touch("email.sent", "marketing", thanked_at, "automation")]
    if not interested:
        return SampleLead(submission, _drop_future(now, touches))
    asked_at = at + timedelta(hours=rng.uniform(1, 24 * 9))
    touches += [
        Touch("email.clicked", "lead", asked_at - _minutes(rng, 5, 50)),
        Touch("demo.requested", "lead", asked_at),
    ]
    steps = list(_make_decisions(rng, str(submission["source"]), asked_at, missed=missed))
    if steps:
        touches.append(Touch("call.attempted", "sales", asked_at + _minutes(rng, 4, 18), "person"))
    if not missed:
        touches += [
            Touch(kind, "sales", step.at + after, "person")
            for step in steps
            if step.decision == "accept"
            for kind, after in _FOLLOW_UPS
        ]
    return SampleLead(submission, _drop_future(now, touches), _drop_future(now, steps))


def _make_decisions(rng: random.Random, source: str, mql_at: datetime, *, missed: bool) -> Iterator[Step]:
    """What sales decides about one MQL, to the win or to wherever it stops."""
    at = mql_at + (timedelta(days=14) if missed else _minutes(rng, 20, 55))
    if rng.random() > 0.74:
        yield Step("reject", at, reason=rng.choice(("no-budget", "no-timing", "too-early")))
        return
    yield Step("accept", at)
    at += timedelta(days=rng.uniform(2, 16))
    if rng.random() > 0.6:
        yield Step("recycle", at, reason=rng.choice(("no-budget", "no-timing")))
        return
    yield Step("qualify", at, fields={"budget": True, "authority": True, "need": True, "timing": True})
    at += timedelta(days=rng.uniform(3, 25))
    if rng.random() > 0.72:
        yield Step("lose", at, reason="no-decision")
        return
    amount = {"amount": str(rng.randrange(6_000, 60_000, 500)), "currency": "USD"}
    close = (at + timedelta(days=45)).date().isoformat()
    yield Step("open_opportunity", at, fields={"amount": amount, "expected_close": close})
    at += timedelta(days=rng.uniform(12, 60))
    if rng.random() < _WIN_RATE[source]:
        yield Step("win", at, fields={"amount": amount})
    else:
        yield Step("lose", at, reason=rng.choice(("price", "competitor", "no-decision")))


def _make_fresh_lead(rng: random.Random, n: int, now: datetime) -> SampleLead:
    at = now - _minutes(rng, 12, 40)
    asked = Touch("demo.requested", "lead", now - _minutes(rng, 1, 10))
    return SampleLead(_make_submission(rng, n, at, rng.randint(60, 2000)), (asked,))


def _make_unreachable_lead(rng: random.Random, n: int, now: datetime) -> SampleLead:
    submission = _make_submission(rng, n, now - _minutes(rng, 10, 600), rng.randint(60, 2000))
    return SampleLead(submission | {"email": f"nobody.{n}@mailinator.com"})


def _minutes(rng: random.Random, low: float, high: float) -> timedelta:
    return timedelta(minutes=rng.uniform(low, high))


def _drop_future(now: datetime, items: list[T]) -> tuple[T, ...]:
    """Those that have happened by `now`, oldest first."""
    return tuple(sorted((item for item in items if item.at <= now), key=lambda item: item.at))
