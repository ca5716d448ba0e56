"""A lead's chain of stage entries, from changes in whatever order they are read."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from accord.contracts.values import utc
from metrics.domain.choices import Visit
from metrics.domain.journey import Change, Entry, chain
from metrics.domain.velocity import Passage, passage

START = utc(2027, 1, 1)
DAY_US = 86_400_000_000
STAGES = ["inquiry", "mql", "sal", "won", "recycled"]


def change(sequence: int, stage: str, hours: float, visit: int = 1, *, correction: bool = False) -> Change:
    return Change(sequence, stage, visit, START + timedelta(hours=hours), correction)


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    visits: dict[str, int] = {}
    changes = []
    for sequence in range(1, draw(st.integers(1, 9))):
        stage = draw(st.sampled_from(STAGES))
        known = visits.get(stage, 0)
        corrects = known > 0 and draw(st.booleans())
        visit = draw(st.integers(1, known)) if corrects else known + 1
        visits[stage] = max(known, visit)
        changes.append(change(sequence, stage, draw(st.integers(-5, 50)), visit, correction=corrects))
    return changes


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_and_number_of_deliveries_do_not_matter(history: list[Change], random: Random) -> None:
    delivered = history + random.sample(history, k=len(history) // 2)
    random.shuffle(delivered)
    assert chain(delivered) == chain(history)


@given(histories())
def test_every_exit_is_the_next_entry(history: list[Change]) -> None:
    entries = chain(history)
    assert [entry.position for entry in entries] == list(range(len(entries)))
    for entry, following in pairwise(entries):
        assert (entry.exited_at, entry.next_stage) == (following.entered_at, following.stage)
    assert not entries or (entries[-1].exited_at, entries[-1].next_stage, entries[-1].duration_us) == (None, None, None)


@given(histories())
def test_each_stage_has_one_first_and_one_last_entry(history: list[Change]) -> None:
    entries = chain(history)
    stages = {entry.stage for entry in entries}
    for flag in ("first", "last"):
        assert sorted(entry.stage for entry in entries if getattr(entry, flag)) == sorted(stages)


def test_a_deal_won_before_its_lead_was_captured_is_won_and_its_time_is_negative() -> None:
    entries = chain([change(1, "inquiry", 0), change(2, "won", -28)])
    assert [entry.stage for entry in entries] == ["inquiry", "won"]
    assert entries[0].duration_us == -28 * 3600 * 1_000_000


def test_a_correction_moves_the_visit_it_corrects_to_its_true_place() -> None:
    entries = chain(
        [change(1, "inquiry", 0), change(2, "mql", 10), change(3, "sal", 12), change(4, "mql", 5, correction=True)]
    )
    assert [(entry.stage, entry.duration_us and entry.duration_us / 3_600_000_000) for entry in entries] == [
        ("inquiry", 5.0),
        ("mql", 7.0),
        ("sal", None),
    ]


def test_a_late_report_of_a_stage_that_was_passed_over_is_put_between() -> None:
    entries = chain([change(1, "inquiry", 0), change(2, "sal", 12), change(3, "mql", 5, correction=True)])
    assert [entry.stage for entry in entries] == ["inquiry", "mql", "sal"]


def test_a_stage_entered_twice_has_two_entries() -> None:
    entries = chain([change(1, "mql", 0), change(2, "recycled", 5), change(3, "mql", 9, visit=2)])
    assert [(entry.stage, entry.first, entry.last) for entry in entries] == [
        ("mql", True, False),
        ("recycled", True, True),
        ("mql", False, True),
    ]


def test_a_way_between_two_stages_may_pass_others_and_may_be_negative() -> None:
    entries = chain([change(1, "inquiry", 0), change(2, "mql", 5), change(3, "won", -24)])
    assert passage(entries, "inquiry", "won", "first", frozenset({"won"})) == Passage("done", -DAY_US)


def test_a_lead_that_ended_elsewhere_left_and_does_not_wait() -> None:
    entries = chain([change(1, "inquiry", 0), change(2, "mql", 5), change(3, "lost", 24)])
    assert passage(entries, "inquiry", "won", "first", frozenset({"won", "lost"})) == Passage("left", DAY_US)
    assert passage(entries[:2], "inquiry", "won", "first", frozenset({"won", "lost"})) == Passage("waiting", None)
    assert passage(entries, "won", "lost", "first", frozenset()) is None


def test_of_two_entries_the_first_or_the_last_starts_the_way() -> None:
    entries = chain([change(1, "mql", 0), change(2, "sal", 24), change(3, "mql", 48, 2)])
    assert passage(entries, "mql", "sal", "first", frozenset()) == Passage("done", DAY_US)
    assert passage(entries, "mql", "sal", "last", frozenset()) == Passage("waiting", None)


@given(histories(), st.sampled_from(["first", "last"]))
def test_a_lead_has_a_passage_from_exactly_the_stages_it_was_in(history: list[Change], visit: Visit) -> None:
    entries = chain(history)
    for stage in ("inquiry", "mql", "sal", "won", "recycled"):
        found = passage(entries, stage, "won", visit, frozenset({"won"}))
        assert (found is not None) == any(entry.stage == stage for entry in entries)
    assert Counter(entry.stage for entry in entries if entry.first) == Counter({entry.stage for entry in entries})


def corrected(
    sequence: int,
    stage: str,
    hours: float,
    *,
    replaces: int | None = None,
    follows: int | None = None,
    gone: bool = False,
) -> Change:
    return Change(sequence, stage, 1, START + timedelta(hours=hours), True, replaces, gone, follows)


def test_a_correction_says_itself_where_it_belongs() -> None:
    said = [change(1, "inquiry", 0), change(2, "mql", 5), change(3, "won", 9)]
    assert _way(chain([*said, corrected(4, "mql", 3, replaces=2)])) == [("inquiry", 0), ("mql", 3), ("won", 9)]
    assert _way(chain([*said, corrected(4, "mql", 5, replaces=2, gone=True)])) == [("inquiry", 0), ("won", 9)]
    earlier = [*said, corrected(4, "sal", 20, follows=2), corrected(5, "recycled", 1, follows=0)]
    assert _way(chain(earlier)) == [("recycled", 1), ("inquiry", 0), ("mql", 5), ("sal", 20), ("won", 9)]
    again = [*earlier, corrected(6, "sal", 6, replaces=4), change(7, "lost", 30)]
    assert _way(chain(again)) == [("recycled", 1), ("inquiry", 0), ("mql", 5), ("sal", 6), ("won", 9), ("lost", 30)]


def test_a_correction_of_what_was_never_heard_of_is_placed_by_its_time_and_withdraws_nothing() -> None:
    said = [change(1, "inquiry", 0), change(2, "mql", 5)]
    assert _way(chain([*said, corrected(9, "sal", 3, replaces=7)])) == [("inquiry", 0), ("sal", 3), ("mql", 5)]
    assert _way(chain([*said, corrected(9, "sal", 3, replaces=7, gone=True)])) == [("inquiry", 0), ("mql", 5)]


def _way(entries: list[Entry]) -> list[tuple[str, float]]:
    return [(entry.stage, (entry.entered_at - START) / timedelta(hours=1)) for entry in entries]
