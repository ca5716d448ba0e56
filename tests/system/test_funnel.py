"""A funnel that is known beforehand, pushed through the public interface, shows exactly its known facts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
import yaml

from accord_local.demo.client import wait_for
from accord_local.demo.play import Callers, sign
from tests.system.known_leads import DEFINITION, LEADS, OLIST_FACTS, Facts, KnownLead, extract_facts, known_leads
from tests.system.running import RUN_BY_SOMEBODY_ELSE, Running, running_stack

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(420)]
BATCH_ROWS = 1000
SHOWN_WITHIN_S = 120.0
DAY_S = 86_400


@pytest.fixture(scope="module")
def known() -> list[KnownLead]:
    return known_leads()


@pytest.fixture(scope="module")
def facts(known: list[KnownLead]) -> Facts:
    return extract_facts(known)


@pytest.fixture(scope="module")
def played(known: list[KnownLead], facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack through which all leads and all wins have gone, and nothing else."""
    if RUN_BY_SOMEBODY_ELSE in os.environ:
        pytest.skip("other leads are in the stack that somebody else runs")
    with running_stack(tmp_path_factory.mktemp("funnel")) as accord:
        sign(Callers(accord.marketing, accord.sales), f"{accord.urls.qualification}/v1/definition", DEFINITION)
        post_leads(accord, known)
        await_entered(accord, "mql", facts.leads_count)
        post_wins(accord, known)
        await_entered(accord, "won", facts.won_count)
        yield accord


def post_leads(accord: Running, known: Sequence[KnownLead]) -> None:
    for start in range(0, len(known), BATCH_ROWS):
        rows = [
            {"source": lead.source, "external_id": lead.id, "occurred_at": lead.entered_at.isoformat()}
            for lead in known[start : start + BATCH_ROWS]
        ]
        answer = accord.marketing.post(f"{accord.urls.intake}/v1/leads:batch", rows)
        assert {row["status"] for row in answer["results"]} == {201}


def post_wins(accord: Running, known: Sequence[KnownLead]) -> None:
    rows = [
        {"lead": f"external:{lead.source}:{lead.id}", "decision": "win", "occurred_at": lead.won_at.isoformat()}
        for lead in known
        if lead.won_at
    ]
    answer = accord.sales.post(f"{accord.urls.qualification}/v1/decisions:batch", rows)
    assert {row["status"] for row in answer["results"]} == {201}


def await_entered(accord: Running, stage: str, count: int) -> None:
    def all_in() -> bool | None:
        groups = accord.marketing.get(f"{accord.urls.metrics}/v1/funnel", mode="cohort")["groups"]
        entered = {found["stage"]: found["entered"] for group in groups for found in group["stages"]}
        return entered.get(stage) == count or None

    wait_for(f"metrics to show {count} leads in {stage}", all_in, timeout_s=SHOWN_WITHIN_S)


@pytest.mark.skipif(not LEADS.exists(), reason="the Olist data set is not beside this checkout")
def test_the_facts_counted_here_are_those_that_olists_data_set_is_known_for(facts: Facts) -> None:
    assert (facts.leads_count, facts.won_count) == (OLIST_FACTS.leads_count, OLIST_FACTS.won_count)
    assert facts.by_source == OLIST_FACTS.by_source
    assert facts.median_days == pytest.approx(OLIST_FACTS.median_days, abs=0.005)
    assert facts.longest_days == pytest.approx(OLIST_FACTS.longest_days, abs=0.005)
    assert facts.won_before_entry == OLIST_FACTS.won_before_entry


def test_the_whole_funnel_shows_how_many_were_won(played: Running, facts: Facts) -> None:
    funnel = played.marketing.get(f"{played.urls.metrics}/v1/funnel", mode="cohort")
    (group,) = funnel["groups"]
    mql, won = group["stages"]
    assert group["by"] == {}
    assert (mql["stage"], mql["entered"]) == ("mql", facts.leads_count)
    assert (won["stage"], won["entered"]) == ("won", facts.won_count)
    assert won["conversion_from_first"] == pytest.approx(facts.won_count / facts.leads_count, abs=1e-9)
    low, high = won["interval_95"]
    assert low < won["conversion_from_previous"] < high


def test_each_source_shows_its_own_wins_and_they_sum_to_the_whole(played: Running, facts: Facts) -> None:
    funnel = played.marketing.get(f"{played.urls.metrics}/v1/funnel", mode="cohort", by="source")
    shown = {group["by"]["source"]: tuple(stage["entered"] for stage in group["stages"]) for group in funnel["groups"]}
    assert shown == {source: (leads, won) for source, (won, leads) in facts.by_source.items()}
    assert sum(won for _, won in shown.values()) == facts.won_count


def test_velocity_shows_the_median_and_the_longest_way_to_a_win(played: Running, facts: Facts) -> None:
    velocity = played.marketing.get(f"{played.urls.metrics}/v1/velocity", between="mql,won")
    (step,) = velocity["groups"][0]["steps"]
    assert (step["n"], step["waiting"]) == (facts.won_count, facts.leads_count - facts.won_count)
    assert step["p50_s"] / DAY_S == pytest.approx(facts.median_days, abs=1e-6)
    ways = f"{played.urls.metrics}/v1/velocity/leads"
    longest = played.marketing.get(ways, between="mql,won", state="done", limit=1)["items"][0]
    assert longest["duration_s"] / DAY_S == pytest.approx(facts.longest_days, abs=1e-6)


def test_a_deal_won_before_its_first_contact_is_reported_beside_the_numbers(played: Running, facts: Facts) -> None:
    funnel = played.marketing.get(f"{played.urls.metrics}/v1/funnel", mode="cohort")
    assert sum(funnel["anomalies"].values()) == facts.won_before_entry, funnel["anomalies"]


def test_a_draft_is_asked_what_it_would_have_made_of_the_whole_history(
    played: Running, known: Sequence[KnownLead], facts: Facts
) -> None:
    """Of a gate that lets in two sources only it is known beforehand whom and how many of the won ones it lets in."""
    let_in = sorted(facts.by_source, key=lambda source: facts.by_source[source])[-2:]
    leads_in = sum(facts.by_source[source][1] for source in let_in)
    won_in = sum(facts.by_source[source][0] for source in let_in)
    draft = yaml.safe_load(DEFINITION)
    draft["stages"][:1] = [
        {"key": "inquiry", "owner": "marketing", "kind": "open", "gate": {"on": "capture"}},
        {**draft["stages"][0], "from": ["inquiry"], "gate": {"when": {"path": "source", "op": "in", "value": let_in}}},
    ]
    definition = f"{played.urls.qualification}/v1/definition"
    version = played.marketing.post(f"{definition}/versions", draft)["version"]
    moments = [lead.entered_at for lead in known]
    period = {"from": min(moments).isoformat(), "to": (max(moments) + timedelta(seconds=1)).isoformat()}
    asked = played.marketing.post(f"{definition}/versions/{version}/what-if", {**period, "by": ["source"]})
    what_if = f"{played.urls.qualification}/v1/what-ifs/{asked['what_if_id']}"

    report = wait_for("the what-if", lambda: played.sales.get(what_if).get("report"), timeout_s=SHOWN_WITHIN_S)

    assert (report["leads"], report["won"]) == (facts.leads_count, facts.won_count)
    mql = next(stage for stage in report["total"]["stages"] if stage["stage"] == "mql")
    assert (mql["actual"], mql["would"], mql["only_would"]) == (facts.leads_count, leads_in, 0)
    (pick,) = report["picks"]
    assert (pick["would"]["let_in"], pick["would"]["won"]) == (leads_in, won_in)
    assert pick["would"]["recall"] == pytest.approx(won_in / facts.won_count, abs=5e-5)  # four digits are shown
    shown = {group["by"]["source"]: (group["won"], group["leads"]) for group in report["groups"]}
    assert shown == facts.by_source
    (decisions,) = report["decisions"]
    assert decisions["applied"] + decisions["ignored"] == facts.won_count
    assert won_in - facts.won_before_entry <= decisions["applied"] <= won_in
