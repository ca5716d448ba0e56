"""What was said of consent is kept as long as the lead, follows it through merges, and a withdrawal is known to all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from tests.intake.conftest import Running
from tests.intake.privacy import POLICY, count, record, submitted, waiting

from accord.contracts.values import utc
from intake.leads.domain.consent import WITHDRAWN, Consent, find_current_consent, resolve_given_at

NOW = utc(2027, 1, 2)


# -- the pure rules --


@st.composite
def histories(draw: st.DrawFn) -> list[Consent]:
    said = []
    for number in range(draw(st.integers(0, 8))):
        basis = draw(st.sampled_from(["consent", "contract", WITHDRAWN]))
        at = NOW + timedelta(days=draw(st.integers(0, 5)))
        said.append(Consent(UUID(int=number), basis, at, NOW + timedelta(hours=number), "web"))
    return said


@given(histories(), st.randoms())
def test_latest_consent_holds_in_any_arrival_order(history: list[Consent], chance: Any) -> None:
    holds = find_current_consent(history)
    last = max((one.given_at for one in history), default=None)
    newest = [one for one in history if one.given_at == last]
    assert holds is None or (holds in newest and holds.basis != WITHDRAWN)
    assert (holds is None) == (not newest or max(newest, key=lambda one: one.recorded_at).basis == WITHDRAWN)
    shuffled = list(history)
    chance.shuffle(shuffled)
    assert find_current_consent(shuffled) == holds


def test_consent_is_never_dated_in_the_future() -> None:
    later = NOW + timedelta(days=400)
    assert resolve_given_at(later, NOW, NOW) == NOW
    assert resolve_given_at(None, NOW - timedelta(days=1), NOW) == NOW - timedelta(days=1)


# -- over HTTP --


async def list_consents(accord: Running, lead_id: str, **query: str) -> dict[str, Any]:
    answer = await accord.caller("reader").get(f"/v1/leads/{lead_id}/consents", **query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_consent_history_is_ordered_by_given_at(accord: Running) -> None:
    later = {"basis": "contract", "given_at": "2026-02-01T00:00:00Z", "text": "We signed"}
    body = await submitted(accord, consent=later)
    earlier = {"basis": "consent", "text": "Yes please"}
    await submitted(accord, consent=earlier, occurred_at="2026-01-01T00:00:00Z")
    await submitted(accord)
    told = await list_consents(accord, body["lead_id"])
    assert [(one["basis"], one["given_at"], one["text"]) for one in told["items"]] == [
        ("consent", "2026-01-01T00:00:00Z", "Yes please"),
        ("contract", "2026-02-01T00:00:00Z", "We signed"),
    ]
    assert told["in_force"] == told["items"][1]
    assert (told["in_force"]["sent_by"], told["in_force"]["submission_id"]) == ("marketing", body["submission_id"])
    assert "signed" not in str(await accord.events())


async def test_withdrawal_ends_consent_and_is_published(accord: Running) -> None:
    body = await submitted(accord, consent={"basis": "consent"})
    said = {"basis": "withdrawn", "text": "Leave me alone"}
    answer = await accord.marketing.post(f"/v1/leads/{body['lead_id']}/consents", said)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["lead_id"], answer.json()["basis"]) == (body["lead_id"], "withdrawn")
    assert "alone" not in answer.text
    told = await list_consents(accord, body["lead_id"])
    assert ([one["basis"] for one in told["items"]], told["in_force"]) == (["consent", "withdrawn"], None)
    event = (await accord.events())[-1]
    assert (event["type"], event["kind"], event["by"], event["sequence"]) == (
        "activity.recorded.v1",
        "consent.withdrawn",
        "lead",
        2,
    )
    assert "alone" not in str(event)
    await submitted(accord, consent={"basis": "consent", "given_at": "2026-01-01T00:00:00Z"})
    assert (await list_consents(accord, body["lead_id"]))["in_force"] is None


async def test_withdrawal_reported_as_activity_counts(accord: Running) -> None:
    body = await submitted(accord, consent={"basis": "consent"})
    activity = {"email": "ada@initech.example", "kind": "consent.withdrawn", "by": "lead"}
    (await accord.marketing.post("/v1/activities", activity)).raise_for_status()
    assert (await list_consents(accord, body["lead_id"]))["in_force"] is None


async def test_consent_given_elsewhere_is_recorded_and_not_published(accord: Running) -> None:
    body = await submitted(accord)
    said = {"basis": "consent", "given_at": "2026-01-01T10:00:00+01:00", "text": "At the fair"}
    path = f"/v1/leads/{body['lead_id']}/consents"
    keyed = {"Idempotency-Key": "k"}
    first = await accord.marketing.post(path, said, **keyed)
    again = await accord.marketing.post(path, said, **keyed)
    assert (first.status_code, again.content) == (201, first.content)
    told = await list_consents(accord, body["lead_id"])
    assert [one["given_at"] for one in told["items"]] == ["2026-01-01T09:00:00Z"]
    assert len(await accord.events()) == 1


async def test_it_follows_a_merge_and_its_reversal(accord: Running) -> None:
    one = await submitted(accord, "ada@initech.example", consent={"basis": "consent"})
    other = await submitted(accord, "byron@initech.example", consent={"basis": "contract"})
    merged = await accord.marketing.post(f"/v1/leads/{one['lead_id']}/merge", {"with": other["lead_id"]})
    both = {said["basis"] for said in (await list_consents(accord, other["lead_id"]))["items"]}
    assert both == {"consent", "contract"}
    await accord.marketing.post(f"/v1/merges/{merged.json()['merge_id']}/revert", None)
    for lead, basis in ((one, "consent"), (other, "contract")):
        assert [said["basis"] for said in (await list_consents(accord, lead["lead_id"]))["items"]] == [basis]


async def test_consent_in_quarantine_counts_only_after_release(accord: Running) -> None:
    await accord.sign(POLICY)
    lead = await submitted(accord, consent={"basis": "contract", "given_at": "2026-01-01T00:00:00Z"})
    body = await waiting(accord, consent={"basis": "consent"})
    assert [one["basis"] for one in (await list_consents(accord, lead["lead_id"]))["items"]] == ["contract"]
    await accord.marketing.post(f"/v1/quarantine/{body['submission_id']}/release", None)
    assert [one["basis"] for one in (await list_consents(accord, lead["lead_id"]))["items"]] == ["contract", "consent"]


async def test_a_long_history_comes_in_pages(accord: Running) -> None:
    body = await submitted(accord)
    path = f"/v1/leads/{body['lead_id']}/consents"
    for day in range(1, 6):
        said = {"basis": "consent", "given_at": f"2026-01-0{6 - day}T00:00:00Z"}
        (await accord.marketing.post(path, said)).raise_for_status()
    first = await list_consents(accord, body["lead_id"], limit="3")
    rest = await list_consents(accord, body["lead_id"], limit="3", cursor=first["next_cursor"])
    days = [one["given_at"][8:10] for one in [*first["items"], *rest["items"]]]
    assert (days, rest["next_cursor"]) == (["01", "02", "03", "04", "05"], None)
    for cursor in ("bm90aGluZw", "WyJ4IiwieSJd"):
        answer = await accord.marketing.get(path, cursor=cursor)
        assert answer.status_code == 422


UNFIT: list[dict[str, Any]] = [
    {},
    {"basis": "Not a word"},
    {"basis": "consent", "given_at": "2199-01-01T00:00:00Z"},
    {"basis": "consent", "given_at": "yesterday"},
    {"basis": "consent", "who": "Ada"},
    {"basis": "consent", "text": "x" * 5_001},
]


async def test_what_does_not_fit_is_refused_and_nothing_is_written(accord: Running) -> None:
    path = f"/v1/leads/{(await submitted(accord))['lead_id']}/consents"
    found = {str(said): (await accord.marketing.post(path, said)).status_code for said in UNFIT}
    assert found == {str(said): 422 for said in UNFIT}
    assert await count(accord, "consent") == 0


async def test_reading_it_needs_personal_read_and_saying_it_leads_write(accord: Running) -> None:
    body = await submitted(accord)
    path = f"/v1/leads/{body['lead_id']}/consents"
    assert (await accord.caller("public").get(path)).status_code == 403
    assert (await accord.caller("reader").post(path, {"basis": "consent"})).status_code == 403
    assert (await accord.marketing.get(f"/v1/leads/{uuid4()}/consents")).status_code == 404


async def test_a_batch_with_consent_costs_one_more_statement_and_one_without_none(accord: Running) -> None:
    rows = [record(f"p{number}@initech.example", consent={"basis": "consent"}) for number in range(50)]
    (await accord.marketing.post("/v1/leads:batch", rows)).raise_for_status()
    assert await count(accord, "consent") == 50
    assert await count(accord, "consent", "recorded_at = (SELECT max(recorded_at) FROM submission)") > 0
