"""Merges by a person's decision, and how they are taken back."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.intake_events import LeadUnmerged, LeadUpdated
from accord.contracts.values import Campaign, utc
from intake.domain.capture import IdentityKey
from intake.domain.lead import Lead, Values, absorbed, updated
from intake.domain.merging import Before, Later, Parted, parted
from intake.domain.quality import Quality

NOW = utc(2027, 1, 1)
MERGE_ID = UUID(int=99)
FIELDS = ("email", "phone", "first_name", "title")
ATTRIBUTES = ("employee_count", "industry")

# Each said value has a moment of its own, so that what came from whom is never in doubt.
moments = st.integers(0, 2**16).map(lambda seed: random.Random(seed).sample(range(10_000), 40))


@st.composite
def leads(draw: st.DrawFn, number: int, at: list[int], *, held: bool = False) -> Lead:
    """A lead with some of the fields; keys of different leads always differ."""
    person = {name: f"{name} {number}" for name in FIELDS if draw(st.booleans())}
    attributes = {name: f"{name} {draw(st.integers(0, 1))}" for name in ATTRIBUTES if draw(st.booleans())}
    named = [*person, *(f"attributes.{name}" for name in attributes)]
    return Lead(
        lead_id=UUID(int=number),
        source=f"source-{number}",
        captured_at=NOW + timedelta(hours=number),
        verdict="unchecked",
        person=person,
        attributes=dict(attributes),
        stamps={name: NOW + timedelta(minutes=at.pop()) for name in named},
        account_id=draw(st.sampled_from([None, UUID(int=500 + number)])),
        campaign=draw(st.sampled_from([None, Campaign(name=f"campaign {number}")])),
        external_keys=(f"{number}" * 64,) if draw(st.booleans()) else (),
        held=held,
        sequence=0 if held else draw(st.integers(1, 5)),
    )


@st.composite
def said(draw: st.DrawFn, at: list[int]) -> Values:
    """A submission that came to the survivor after the merge, with keys of nobody else."""
    number = draw(st.integers(3, 9))
    return Values(
        source="later",
        at=NOW + timedelta(minutes=at.pop()),
        person={name: f"said {number}" for name in FIELDS if draw(st.booleans())},
        attributes={name: f"{name} said {number}" for name in ATTRIBUTES if draw(st.booleans())},
        account_id=None,
        campaign=None,
        external_key=f"{number}" * 64 if draw(st.booleans()) else None,
        quality=Quality("unchecked"),
    )


def keys_of_lead(lead: Lead) -> set[IdentityKey]:
    keys: set[IdentityKey] = {("external", key) for key in lead.external_keys}
    keys |= {("email", lead.person["email"])} if "email" in lead.person else set()
    keys |= {("phone", lead.person["phone"])} if "phone" in lead.person else set()
    return keys


def take_back(whole: Lead, gone: Lead, before: Lead, later: list[Later] | None = None) -> Parted:
    merged = replace(gone, merged_into=before.lead_id)
    return parted(whole, merged, Before.of(before), keys_of_lead(gone), later or [], MERGE_ID, NOW)


def without_sequence(lead: Lead) -> Lead:
    return replace(lead, sequence=0)


@given(st.data(), moments)
def test_a_merge_taken_back_at_once_leaves_both_as_they_were(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at))
    whole = replace(absorbed(survivor, gone), sequence=survivor.sequence + 1)
    back = take_back(whole, gone, survivor)
    assert without_sequence(back.survivor) == without_sequence(survivor)
    assert back.restored == gone
    (event,) = back.events
    assert isinstance(event, LeadUnmerged)
    assert (
        (event.lead_id, event.sequence)
        == (survivor.lead_id, whole.sequence + 1)
        == (event.lead_id, back.survivor.sequence)
    )
    assert (event.state, event.restored_state) == (back.survivor.state(), gone.state())


@given(st.data(), moments)
def test_what_was_said_to_the_survivor_since_stays(data: st.DataObject, at: list[int]) -> None:
    """Taking the merge back gives the lead that the survivor would be if the other had never been in it, where what was said since is
    newer than what the other said."""
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at))
    whole = absorbed(survivor, gone)
    alone = survivor
    for values in data.draw(st.lists(said(at), max_size=4)):
        recent = values._replace(at=values.at + timedelta(days=30))
        whole, alone = updated(whole, recent), updated(alone, recent)
    back = take_back(whole, gone, survivor)
    assert without_sequence(back.survivor) == without_sequence(alone)


@given(st.data(), moments)
def test_values_said_late_never_bring_back_anything_of_the_other(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at))
    whole = absorbed(survivor, gone)
    for values in data.draw(st.lists(said(at), max_size=4)):
        whole = updated(whole, values)
    back = take_back(whole, gone, survivor).survivor
    assert not [name for name, value in back.person.items() if value == gone.person.get(name)]
    assert not set(back.external_keys) & set(gone.external_keys)
    assert back.captured_at == survivor.captured_at
    assert back.source == survivor.source


@given(st.data(), moments, st.sampled_from([0, 1]))
def test_of_two_merges_either_may_be_taken_back_first(data: st.DataObject, at: list[int], first: int) -> None:
    survivor = data.draw(leads(1, at))
    others = [data.draw(leads(2, at)), data.draw(leads(3, at))]
    once = absorbed(survivor, others[0])
    twice = absorbed(once, others[1])
    later = Later(UUID(int=7), others[1], Before.of(once))
    if first == 1:
        back = take_back(twice, others[1], once)
        assert without_sequence(back.survivor) == without_sequence(once)
        return
    back = take_back(twice, others[0], survivor, [later])
    assert without_sequence(back.survivor) == without_sequence(absorbed(survivor, others[1]))
    alone = parted(back.survivor, others[1], back.later[later.merge_id], keys_of_lead(others[1]), [], MERGE_ID, NOW)
    assert without_sequence(alone.survivor) == without_sequence(survivor)


@given(st.data(), moments)
def test_a_held_lead_is_restored_without_being_told_of(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at)), data.draw(leads(2, at, held=True))
    whole = absorbed(survivor, gone)
    back = take_back(whole, gone, survivor)
    assert back.restored == gone
    assert back.restored.held
    assert without_sequence(back.survivor) == without_sequence(survivor)
    assert all(isinstance(event, LeadUpdated) for event in back.events)
    assert bool(back.events) == (whole.state() != survivor.state())


@given(st.data(), moments)
def test_of_two_held_leads_nothing_is_told(data: st.DataObject, at: list[int]) -> None:
    survivor, gone = data.draw(leads(1, at, held=True)), data.draw(leads(2, at, held=True))
    back = take_back(absorbed(survivor, gone), gone, survivor)
    assert (back.survivor, back.restored, back.events) == (survivor, gone, ())
