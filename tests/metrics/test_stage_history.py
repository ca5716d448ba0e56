"""A lead's stage history, from changes in any order."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.values import utc
from metrics.domain.report_query import Visit
from metrics.domain.stage_history import StageChange, StageEntry, derive_stage_history
from metrics.domain.velocity import Passage, measure_passage

START = utc(2027, 1, 1)
DAY_US = 86_400_000_000
STAGES = ["inquiry", "mql", "sal", "won", "recycled"]


def change(sequence: int, stage: str, hours: float, visit: int = 1, *, correction: bool = False) -> StageChange:
    return StageChange(sequence, stage, visit, START + timedelta(hours=hours), correction)


@st.composite
def histories(draw: st.DrawFn) -> list[StageChange]:
    visits: dict[str, int] = {}
    changes = []
    for sequence in range(1, draw(st.integers(1, 9))):
        stage = draw(st.sampled_from(STAGES))
        visited = visits.get(stage, 0)
        corrects = visited > 0 and draw(st.booleans())
        visit = draw(st.integers(1, visited)) if corrects else visited + 1
        visits[stage] = max(visited, visit)
        changes.append(change(sequence, stage, draw(st.integers(-5, 50)), visit, correction=corrects))
    return changes


@given(histories(), st.randoms(use_true_random=False))
def test_order_and_number_of_deliveries_do_not_matter(history: list[StageChange], random: Random) -> None:
    delivered = history + random.sample(history, k=len(history) // 2)
    random.shuffle(delivered)
    assert derive_stage_history(delivered) == derive_stage_history(history)


@given(histories())
def test_every_exit_is_the_next_entry(history: list[StageChange]) -> None:
    entries = derive_stage_history(history)
    assert [entry.position for entry in entries] == list(range(len(entries)))
    for entry, following in pairwise(entries):
        assert (entry.exited_at, entry.next_stage) == (following.entered_at, following.stage)
    assert not entries or (entries[-1].exited_at, entries[-1].next_stage, entries[-1].duration_us) == (None, None, None)


@given(histories())
def test_each_stage_has_one_first_and_one_last_entry(history: list[StageChange]) -> None:
    entries = derive_stage_history(history)
    stages = {entry.stage for entry in entries}
    for flag in ("is_first", "is_last"):
        assert sorted(entry.stage for entry in entries if getattr(entry, flag)) == sorted(stages)


def test_win_before_capture_has_a_negative_duration() -> None:
    entries = derive_stage_history([change(1, "inquiry", 0), change(2, "won", -28)])
    assert [entry.stage for entry in entries] == ["inquiry", "won"]
    assert entries[0].duration_us == -28 * 3600 * 1_000_000


def test_correction_moves_its_visit_to_the_corrected_position() -> None:
    entries = derive_stage_history(
        [change(1, "inquiry", 0), change(2, "mql", 10), change(3, "sal", 12), change(4, "mql", 5, correction=True)]
    )
    assert [(entry.stage, entry.duration_us and entry.duration_us / 3_600_000_000) for entry in entries] == [
        ("inquiry", 5.0),
        ("mql", 7.0),
        ("sal", None),
    ]


def test_late_report_of_a_skipped_stage_is_inserted_between() -> None:
    entries = derive_stage_history(
        [change(1, "inquiry", 0), change(2, "sal", 12), change(3, "mql", 5, correction=True)]
    )
    assert [entry.stage for entry in entries] == ["inquiry", "mql", "sal"]


def test_stage_entered_twice_has_two_entries() -> None:
    entries = derive_stage_history([change(1, "mql", 0), change(2, "recycled", 5), change(3, "mql", 9, visit=2)])
    assert [(entry.stage, entry.is_first, entry.is_last) for entry in entries] == [
        ("mql", True, False),
        ("recycled", True, True),
        ("mql", False, True),
    ]


def test_passage_may_cross_other_stages_and_may_be_negative() -> None:
    entries = derive_stage_history([change(1, "inquiry", 0), change(2, "mql", 5), change(3, "won", -24)])
    assert measure_passage(entries, "inquiry", "won", "first", frozenset({"won"})) == Passage("done", -DAY_US)


def test_lead_that_rests_elsewhere_has_left() -> None:
    entries = derive_stage_history([change(1, "inquiry", 0), change(2, "mql", 5), change(3, "lost", 24)])
    assert measure_passage(entries, "inquiry", "won", "first", frozenset({"won", "lost"})) == Passage("left", DAY_US)
    assert measure_passage(entries[:2], "inquiry", "won", "first", frozenset({"won", "lost"})) == Passage(
        "waiting", None
    )
    assert measure_passage(entries, "won", "lost", "first", frozenset()) is None


def test_first_or_last_entry_starts_the_passage() -> None:
    entries = derive_stage_history([change(1, "mql", 0), change(2, "sal", 24), change(3, "mql", 48, 2)])
    assert measure_passage(entries, "mql", "sal", "first", frozenset()) == Passage("done", DAY_US)
    assert measure_passage(entries, "mql", "sal", "last", frozenset()) == Passage("waiting", None)


@given(histories(), st.sampled_from(["first", "last"]))
def test_lead_has_passages_from_exactly_its_entered_stages(history: list[StageChange], visit: Visit) -> None:
    entries = derive_stage_history(history)
    for stage in ("inquiry", "mql", "sal", "won", "recycled"):
        found = measure_passage(entries, stage, "won", visit, frozenset({"won"}))
        assert (found is not None) == any(entry.stage == stage for entry in entries)
    assert Counter(entry.stage for entry in entries if entry.is_first) == Counter({entry.stage for entry in entries})


def corrected(
    sequence: int,
    stage: str,
    hours: float,
    *,
    replaces: int | None = None,
    follows: int | None = None,
    withdrawn: bool = False,
) -> StageChange:
    return StageChange(sequence, stage, 1, START + timedelta(hours=hours), True, replaces, withdrawn, follows)


def test_correction_is_inserted_where_it_refers_to() -> None:
    reported = [change(1, "inquiry", 0), change(2, "mql", 5), change(3, "won", 9)]
    assert _path(derive_stage_history([*reported, corrected(4, "mql", 3, replaces=2)])) == [
        ("inquiry", 0),
        ("mql", 3),
        ("won", 9),
    ]
    assert _path(derive_stage_history([*reported, corrected(4, "mql", 5, replaces=2, withdrawn=True)])) == [
        ("inquiry", 0),
        ("won", 9),
    ]
    earlier = [*reported, corrected(4, "sal", 20, follows=2), corrected(5, "recycled", 1, follows=0)]
    assert _path(derive_stage_history(earlier)) == [
        ("recycled", 1),
        ("inquiry", 0),
        ("mql", 5),
        ("sal", 20),
        ("won", 9),
    ]
    again = [*earlier, corrected(6, "sal", 6, replaces=4), change(7, "lost", 30)]
    assert _path(derive_stage_history(again)) == [
        ("recycled", 1),
        ("inquiry", 0),
        ("mql", 5),
        ("sal", 6),
        ("won", 9),
        ("lost", 30),
    ]


def test_correction_of_an_unknown_entry_is_inserted_by_time_and_withdraws_nothing() -> None:
    reported = [change(1, "inquiry", 0), change(2, "mql", 5)]
    assert _path(derive_stage_history([*reported, corrected(9, "sal", 3, replaces=7)])) == [
        ("inquiry", 0),
        ("sal", 3),
        ("mql", 5),
    ]
    assert _path(derive_stage_history([*reported, corrected(9, "sal", 3, replaces=7, withdrawn=True)])) == [
        ("inquiry", 0),
        ("mql", 5),
    ]


def _path(entries: list[StageEntry]) -> list[tuple[str, float]]:
    return [(entry.stage, (entry.entered_at - START) / timedelta(hours=1)) for entry in entries]
