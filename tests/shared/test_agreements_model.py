"""The life of a version, with no database: whatever is tried in whatever order, both departments must sign the same content."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tests.effort import cases

from accord.agreements import model
from accord.agreements.model import Version

START = datetime(2027, 1, 4, 9, tzinfo=UTC)
DEPARTMENTS = st.sampled_from(["marketing", "sales"])
KEYS = st.sampled_from(["ann", "bob", "cid"])
HASHES = st.sampled_from(["a" * 64, "b" * 64])


class Life(RuleBasedStateMachine):
    """All versions of one kind, as the store keeps them: each change goes through a function of the model."""

    versions = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.kept: dict[int, Version] = {}

    def active(self) -> Version | None:
        found = [version for version in self.kept.values() if version.status == "active"]
        return found[0] if found else None

    def put(self, version: Version) -> None:
        assert version.revision == self.kept[version.version].revision + 1
        self.kept[version.version] = version

    @rule(target=versions, sha=HASHES)
    def draft(self, sha: str) -> int:
        number = len(self.kept) + 1
        self.kept[number] = Version(number, "draft", sha)
        return number

    @rule(hours=st.integers(0, 48))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(number=versions, sha=HASHES)
    def edit(self, number: int, sha: str) -> None:
        before = self.kept[number]
        try:
            self.put(model.edit(before, sha))
        except model.NotADraft:
            assert before.status != "draft"
        else:
            assert before.status == "draft"

    @rule(number=versions, by=KEYS, hours=st.none() | st.integers(-5, 72))
    def propose(self, number: int, by: str, hours: int | None) -> None:
        before = self.kept[number]
        wish = None if hours is None else self.now + timedelta(hours=hours)
        try:
            self.put(model.propose(before, by, self.now, wish))
        except model.NotADraft:
            assert before.status != "draft"
        except model.EffectiveInThePast:
            assert wish is not None
            assert wish < self.now

    @rule(number=versions, department=DEPARTMENTS, by=KEYS, sha=HASHES)
    def sign(self, number: int, department: model.Department, by: str, sha: str) -> None:
        before = self.kept[number]
        try:
            signed = model.sign(before, department, by, sha, self.now)
        except model.NotProposed:
            assert before.status != "proposed"
            return
        except model.ContentDiffers:
            assert sha != before.content_sha256
            return
        except (model.DepartmentHasSigned, model.KeyHasSigned):
            assert before.signatures
            return
        self.put(signed)
        self.try_to_activate(number)

    @rule(number=versions)
    def try_to_activate(self, number: int) -> None:
        before, current = self.kept[number], self.active()
        try:
            active, superseded = model.activate(before, current, self.now)
        except model.NotDue:
            assert not model.is_due(before, self.now)
            return
        assert before.effective_at is None or before.effective_at <= self.now
        self.put(active)
        if superseded is not None:
            assert current is not None
            assert superseded.version == current.version
            self.put(superseded)

    @rule(number=consumes(versions), by=KEYS)
    def withdraw(self, number: int, by: str) -> None:
        before = self.kept[number]
        try:
            self.put(model.withdraw(before, by, self.now))
        except model.NotWithdrawable:
            assert before.status in ("active", "superseded", "withdrawn")

    @invariant()
    def at_most_one_is_in_force(self) -> None:
        assert sum(version.status == "active" for version in self.kept.values()) <= 1

    @invariant()
    def what_is_or_was_in_force_was_signed_by_two_keys_of_two_departments_under_its_content(self) -> None:
        for version in self.kept.values():
            if version.active_from is None:
                assert version.status not in ("active", "superseded")
                continue
            assert version.fully_signed
            assert len({signature.signed_by for signature in version.signatures.values()}) == 2
            assert {signature.content_sha256 for signature in version.signatures.values()} == {version.content_sha256}
            assert all(signature.signed_at <= version.active_from for signature in version.signatures.values())

    @invariant()
    def the_times_in_force_follow_each_other(self) -> None:
        in_force = sorted(
            (version for version in self.kept.values() if version.active_from is not None),
            key=lambda version: (version.active_from, version.superseded_at or datetime.max.replace(tzinfo=UTC)),
        )
        for before, after in pairwise(in_force):
            assert before.superseded_at == after.active_from

    @invariant()
    def a_proposed_content_never_changes(self) -> None:
        for version in self.kept.values():
            for signature in version.signatures.values():
                assert signature.content_sha256 == version.content_sha256


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=cases(60), stateful_step_count=40, deadline=None)


def proposed() -> Version:
    return model.propose(Version(1, "draft", "a" * 64), "ann", START)


def test_one_key_cannot_sign_for_both_departments() -> None:
    once = model.sign(proposed(), "marketing", "ann", "a" * 64, START)
    with pytest.raises(model.KeyHasSigned):
        model.sign(once, "sales", "ann", "a" * 64, START)


def test_a_department_signs_once() -> None:
    once = model.sign(proposed(), "marketing", "ann", "a" * 64, START)
    with pytest.raises(model.DepartmentHasSigned):
        model.sign(once, "marketing", "bob", "a" * 64, START)


def test_an_activation_is_never_before_the_one_it_supersedes() -> None:
    late = START + timedelta(minutes=1)
    current = Version(1, "active", "a" * 64, active_from=late)
    signed = model.sign(model.sign(proposed(), "marketing", "ann", "a" * 64, START), "sales", "bob", "a" * 64, START)
    active, superseded = model.activate(signed, current, START)
    assert active.active_from == late
    assert superseded is not None
    assert superseded.superseded_at == late
