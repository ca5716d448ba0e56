"""One row or import that raises stops no other, and a submission needs one connection only."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.intake.conftest import Running
from tests.intake.import_service import people, running_import_client
from tests.intake.privacy import POLICY, waiting
from tests.intake.test_retention import AT_ONCE, retaining

from accord.agreements import ActiveCache, AgreementStore
from accord.db import Database
from intake.capture.api.answers import encode_capture
from intake.capture.service.capture import Capture
from intake.leads.domain.submission import Submission
from intake.leads.service.submissions import CaptureRequest
from intake.policy.service.agreement import POLICY as POLICY_KIND
from intake.policy.service.agreement import compile_policy
from intake.quarantine.queries import EXPIRING


async def test_submission_that_raises_rests_and_retention_drops_all_others(accord: Running) -> None:
    await accord.sign(POLICY)
    broken, other = await waiting(accord), await waiting(accord, "bob@initech.example")
    unreadable = "UPDATE submission SET keys = ARRAY['no key'] WHERE submission_id = $1::uuid"
    await accord.rows(unreadable, broken["submission_id"])
    async with retaining(accord, AT_ONCE) as retention:
        while await retention.run_once():
            pass
    settled = await accord.rows("SELECT submission_id, settled FROM submission ORDER BY submission_id")
    assert {str(row["submission_id"]): row["settled"] for row in settled} == {
        broken["submission_id"]: None,
        other["submission_id"]: "expired",
    }
    (stuck,) = await accord.rows("SELECT worker, key FROM stuck_row")
    assert (stuck["worker"], str(stuck["key"])) == (EXPIRING, broken["submission_id"])


async def test_import_that_cannot_be_read_fails_and_all_others_go_on(database_url: str, keys_file: Path) -> None:
    async with running_import_client(database_url, keys_file, works=False) as idle:
        broken = (await idle.send(people(3))).json()["import_id"]
        other = (await idle.send(people(4))).json()["import_id"]
        await idle.rows("UPDATE import_job SET plan = '{}' WHERE import_id = $1::uuid", broken)
    async with running_import_client(database_url, keys_file) as working:
        assert (await working.wait_until_ended(other))["state"] == "finished"
        found = await working.wait_until_ended(broken)
        assert (found["state"], found["rows"]["read"]) == ("failed", 0)
        assert [one["state"] for one in await working.list_imports(lambda found: len(found) == 2)] == [
            "finished",
            "failed",
        ]


async def test_submissions_need_no_second_connection(accord: Running) -> None:
    await accord.sign(POLICY)
    database = Database(accord.dsn, application_name="single", pool_size=1)
    capture = Capture(database, ActiveCache(AgreementStore(database, POLICY_KIND), compile_policy), encode_capture)
    requests = [
        CaptureRequest(Submission(source="website", email=f"p{n}@initech.example"), "{}", "marketing") for n in range(2)
    ]
    await asyncio.gather(*(capture.apply([request]) for request in requests))
    assert len(await accord.rows("SELECT 1 FROM submission")) == 2
    await database.dispose()
