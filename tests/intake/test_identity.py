"""One person once: how submissions meet leads, by made-up sequences of them."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.codec import decode_value, encode_value
from accord.contracts.intake_events import LeadCaptured, LeadMerged, LeadUpdated
from accord.contracts.values import utc
from intake.leads.domain.keys import IdentityKey
from intake.leads.domain.lead import Values, absorb_lead, choose_survivor, create_lead
from intake.leads.domain.quality import Quality
from intake.leads.domain.unit_of_work import Candidate, CaptureUnitOfWork

NOW = utc(2027, 1, 1)
people = st.lists(
    st.tuples(
        st.sampled_from([None, "a@x.example", "b@x.example", "c@x.example"]),
        st.sampled_from([None, "+1", "+2", "+3"]),
        st.sampled_from([None, *(digit * 64 for digit in "123")]),
        st.integers(0, 100),
        st.sampled_from(["accepted", "quarantined", "rejected"]),
    ),
    max_size=25,
)


def candidate(
    number: int, email: str | None, phone: str | None, external: str | None, hours: int, verdict: str
) -> Candidate:
    person = {name: value for name, value in (("email", email), ("phone", phone)) if value}
    quality = Quality(verdict, 1.0, 1)  # type: ignore[arg-type]  # one of the sampled verdicts
    values = Values(
        source=f"s{number}",
        at=NOW + timedelta(hours=hours),
        person=person | {"title": f"t{number}"},
        attributes={"n": number},
        account_id=None,
        campaign=None,
        external_key=external,
        quality=quality,
        verdict="unchecked" if verdict == "rejected" else verdict,  # type: ignore[arg-type]
    )
    named = {"email": email, "phone": phone, "external": external}
    keys: tuple[IdentityKey, ...] = tuple((kind, value) for kind, value in named.items() if value)  # type: ignore[misc]
    return Candidate(UUID(int=20_000 + number << 8), UUID(int=number + 1), keys, values)


def play(submissions: list[tuple[str | None, str | None, str | None, int, str]]) -> CaptureUnitOfWork:
    lead_changes = CaptureUnitOfWork(NOW + timedelta(days=30), {}, {})
    for number, submission in enumerate(submissions):
        lead_changes.apply(candidate(number, *submission))
    return lead_changes


@given(people)
def test_every_key_names_one_living_lead(
    submissions: list[tuple[str | None, str | None, str | None, int, str]],
) -> None:
    lead_changes = play(submissions)
    for lead_id in lead_changes.keys.values():
        assert lead_changes.leads[lead_id].merged_into is None
    gone = {merge.other.lead_id for merge in lead_changes.merges}
    assert all((lead_changes.leads[one].merged_into is not None) == (one in gone) for one in lead_changes.leads)


@given(people)
def test_sequences_have_no_gap_and_start_with_captured(
    submissions: list[tuple[str | None, str | None, str | None, int, str]],
) -> None:
    lead_changes = play(submissions)
    sequences: dict[UUID, list[int]] = {}
    entered: set[UUID] = set()
    for event in lead_changes.events:
        if isinstance(event, LeadCaptured):
            entered.add(event.lead_id)
        if isinstance(event, LeadUpdated | LeadMerged):
            assert event.lead_id in entered
        if hasattr(event, "lead_id"):
            sequences.setdefault(event.lead_id, []).append(event.sequence)
    assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())
    assert all(lead_changes.leads[lead_id].sequence == len(found) for lead_id, found in sequences.items())


@given(people)
def test_people_connected_by_accepted_submissions_are_one_lead_and_others_are_not(
    submissions: list[tuple[str | None, str | None, str | None, int, str]],
) -> None:
    accepted = [(*one[:4], "accepted") for one in submissions if any(one[:3])]
    lead_changes = play(accepted)
    groups: list[set[str]] = []
    for submission in accepted:
        keys = {key for key in submission[:3] if key}
        joined = [group for group in groups if group & keys]
        groups = [group for group in groups if not group & keys] + [set().union(keys, *joined)]
    found: dict[UUID, set[str]] = {}
    for (_, value), lead_id in lead_changes.keys.items():
        found.setdefault(lead_id, set()).add(value)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, groups))


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_oldest_survives_a_merge_and_the_newest_value_wins(first: int, second: int) -> None:
    one = create_lead(
        UUID(int=1), candidate(1, "a@x.example", None, None, first, "accepted").values, pending=False, sequence=1
    )
    two = create_lead(UUID(int=2), candidate(2, None, "+1", None, second, "accepted").values, pending=False, sequence=1)
    survivor, gone = choose_survivor(one, two)
    assert survivor.captured_at == min(one.captured_at, two.captured_at)
    whole = absorb_lead(survivor, gone)
    newest = gone if gone.captured_at >= survivor.captured_at else survivor
    assert (whole.person["title"], whole.attributes["n"]) == (newest.person["title"], newest.attributes["n"])
    assert (whole.source, whole.captured_at) == (survivor.source, survivor.captured_at)
    assert whole.person["email"] == "a@x.example"
    assert whole.person["phone"] == "+1"


@given(people)
def test_what_is_published_is_valid_though_it_was_not_checked_when_it_was_made(
    submissions: list[tuple[str | None, str | None, str | None, int, str]],
) -> None:
    lead_changes = play(submissions)
    for event in lead_changes.events:
        assert decode_value(type(event), encode_value(event)) == event
