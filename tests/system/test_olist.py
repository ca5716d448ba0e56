"""The real funnel of Olist, pushed through the public interface, shows exactly its known facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from tests.system import olist
from tests.system.running import Running, running_stack

from accord_local.demo.client import wait_for
from accord_local.demo.play import Callers, sign

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(420),
    pytest.mark.xdist_group("olist"),
    pytest.mark.skipif(not olist.LEADS.exists(), reason="the Olist data set is not beside this checkout"),
]
BATCH_ROWS = 1000


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack through which all 8,000 leads and 842 wins have gone."""
    with running_stack(tmp_path_factory.mktemp("olist")) as accord:
        leads = olist.read()
        sign(Callers(accord.marketing, accord.sales), f"{accord.urls.qualification}/v1/definition", olist.DEFINITION)
        _post_leads(accord, leads)
        _await_stage(accord, leads)
        _post_wins(accord, [lead for lead in leads if lead.won_at])
        wait_for("metrics to show every win", lambda: _won(accord) == olist.WON_COUNT or None, timeout_s=120)
        yield accord


def _post_leads(accord: Running, leads: Sequence[olist.OlistLead]) -> None:
    for start in range(0, len(leads), BATCH_ROWS):
        rows = [
            {"source": lead.origin, "external_id": lead.id, "occurred_at": f"{lead.first_contact}T00:00:00Z"}
            for lead in leads[start : start + BATCH_ROWS]
        ]
        answer = accord.marketing.post(f"{accord.urls.intake}/v1/leads:batch", rows)
        assert {row["status"] for row in answer["results"]} == {201}


def _await_stage(accord: Running, leads: Sequence[olist.OlistLead]) -> None:
    def all_in() -> bool | None:
        funnel = accord.marketing.get(f"{accord.urls.metrics}/v1/funnel", mode="cohort")
        stages = funnel["groups"][0]["stages"] if funnel["groups"] else []
        return (stages and stages[0]["entered"] == len(leads)) or None

    wait_for("metrics to show every lead", all_in, timeout_s=120)


def _post_wins(accord: Running, won: Sequence[olist.OlistLead]) -> None:
    rows = [
        {
            "lead": f"external:{lead.origin}:{lead.id}",
            "decision": "win",
            "occurred_at": f"{str(lead.won_at).replace(' ', 'T')}Z",
        }
        for lead in won
    ]
    answer = accord.sales.post(f"{accord.urls.qualification}/v1/decisions:batch", rows)
    assert {row["status"] for row in answer["results"]} == {201}


def _won(accord: Running) -> int:
    funnel = accord.marketing.get(f"{accord.urls.metrics}/v1/funnel", mode="cohort")
    return int(funnel["groups"][0]["stages"][-1]["entered"])


def test_the_whole_funnel_shows_842_of_8000_won(played: Running) -> None:
    funnel = played.marketing.get(f"{played.urls.metrics}/v1/funnel", mode="cohort")
    (group,) = funnel["groups"]
    mql, won = group["stages"]
    assert group["by"] == {}
    assert (mql["stage"], mql["entered"]) == ("mql", olist.LEADS_COUNT)
    assert (won["stage"], won["entered"]) == ("won", olist.WON_COUNT)
    assert won["conversion_from_first"] == pytest.approx(0.10525, abs=1e-9)
    low, high = won["interval_95"]
    assert low < won["conversion_from_previous"] < high


def test_each_origin_shows_its_own_wins_and_they_sum_to_the_whole(played: Running) -> None:
    funnel = played.marketing.get(f"{played.urls.metrics}/v1/funnel", mode="cohort", by="source")
    shown = {group["by"]["source"]: tuple(s["entered"] for s in group["stages"]) for group in funnel["groups"]}
    assert shown == {origin: (leads, won) for origin, (won, leads) in olist.WON_BY_ORIGIN.items()}


def test_velocity_shows_the_median_and_the_longest_way_to_a_win(played: Running) -> None:
    velocity = played.marketing.get(f"{played.urls.metrics}/v1/velocity", between="mql,won")
    (step,) = velocity["groups"][0]["steps"]
    assert (step["n"], step["waiting"]) == (olist.WON_COUNT, olist.LEADS_COUNT - olist.WON_COUNT)
    assert step["p50_s"] / 86_400 == pytest.approx(olist.MEDIAN_DAYS, abs=0.005)
    longest = played.marketing.get(f"{played.urls.metrics}/v1/velocity/leads", between="mql,won", limit=1)["items"][0]
    assert longest["duration_s"] / 86_400 == pytest.approx(olist.LONGEST_DAYS, abs=0.005)


def test_the_deal_won_before_its_first_contact_is_reported_beside_the_numbers(played: Running) -> None:
    funnel = played.marketing.get(f"{played.urls.metrics}/v1/funnel", mode="cohort")
    assert sum(funnel["anomalies"].values()) == 1, funnel["anomalies"]
