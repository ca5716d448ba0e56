"""`accord import`: a file becomes leads in one command, whatever is wrong is said in a line, and the same file twice changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

import intake
from accord.migrations.run import upgrade_sync
from accord_local import keys
from accord_local.import_file import parse_mapping
from accord_local.processes import wait_for
from tests.conftest import DatabaseFactory
from tests.system.known_leads import LEADS as OLIST

MIGRATIONS = Path(intake.__file__).parent / "migrations"
PATIENCE_S = 100
PEOPLE = "E-Mail;First Name;Shoe size\r\nada@initech.example;Ada;38\r\nnobody;Eve;40\r\n"
OLIST_MAPPING = ("--map", "mql_id=external_id", "--map", "first_contact_date=occurred_at", "--map", "origin=source")
ONE_OF_THEM = "dac32acd4db4c29c230538b72f8dd87d"
"""Its first contact was on 2018-02-01."""


@dataclass(frozen=True)
class Accord:
    """A running intake, and the command beside it."""

    url: str
    key: str
    dsn: str
    log: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ACCORD_INTAKE_URL": self.url, "ACCORD_KEY": self.key}
        command = [sys.executable, "-m", "accord_local.cli", "import", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        print(self.log.read_text())  # shown with a test that fails
        return done

    async def rows(self, sql: str) -> list[dict[str, object]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()


@pytest.fixture
def accord(database_factory: DatabaseFactory, tmp_path: Path) -> Iterator[Accord]:
    """The service as it is started in production, with nobody to publish to."""
    url = database_factory("importing", lambda found: upgrade_sync(MIGRATIONS, found))
    keys_path = tmp_path / "keys.yaml"
    scopes = ["leads:read", "leads:write", "personal:read"]
    key = keys.create(keys_path, name="marketing", department="marketing", scopes=scopes)
    environment = {
        **os.environ,
        "ACCORD_DATABASE_URL": url,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ACCORD_API_KEYS_FILE": str(keys_path),
        "ACCORD_PORT": "0",
    }
    log = tmp_path / "intake.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "intake.main", "all"], env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield Accord(
            f"http://127.0.0.1:{_port(process, log)}", key, url.replace("postgresql+asyncpg", "postgresql"), log
        )
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Where the service says that it listens."""
    wait_for(lambda: b'"started"' in log.read_bytes() or process.poll() is not None, timeout_s=PATIENCE_S, every_s=0.05)
    said = [line for line in log.read_text().splitlines() if '"started"' in line]
    assert said, log.read_text()
    return int(json.loads(said[0])["port"])


def written(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


async def test_a_file_is_sent_followed_and_summed_up(accord: Accord, tmp_path: Path) -> None:
    errors = tmp_path / "errors.csv"
    done = accord.run(written(tmp_path / "people.csv", PEOPLE), "--source", "fair", "--errors", str(errors))
    assert done.returncode == 0, done.stderr
    assert "E-Mail → email" in done.stdout
    assert "Kept, but not mapped: Shoe size" in done.stdout
    assert "row 3: E-Mail: Is not an e-mail address" in done.stdout
    assert (
        errors.read_text(encoding="utf-8-sig").splitlines()[0] == "accord_row;accord_error;E-Mail;First Name;Shoe size"
    )
    corrected = errors.read_text(encoding="utf-8").replace("nobody", "eve@initech.example")
    again = accord.run(written(tmp_path / "corrected.csv", corrected), "--source", "fair")
    assert again.returncode == 0, again.stderr
    assert {row["email"] for row in await accord.rows("SELECT email FROM lead")} == {
        "ada@initech.example",
        "eve@initech.example",
    }


async def test_a_dry_run_writes_no_lead(accord: Accord, tmp_path: Path) -> None:
    done = accord.run(written(tmp_path / "people.csv", PEOPLE), "--source", "fair", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would be" in done.stdout
    assert await accord.rows("SELECT 1 FROM lead") == []


WRONG = {
    ("--map", "Mail=email"): "accord: mapping /Mail: There is no such column",
    ("--map", "E-Mail=nickname"): "accord: mapping /E-Mail: There is no such field of a submission",
    ("--map", "nonsense"): "accord: --map nonsense: must be COLUMN=FIELD, such as --map mql_id=external_id",
    ("--timezone", "Mars"): "accord: timezone: Is not a time zone of the IANA database, such as America/Chicago",
    ("--key", "acc_wrong"): "accord: The key or token is not known.",
    ("--url", "http://127.0.0.1:1"): "accord: http://127.0.0.1:1 cannot be reached: ConnectError",
    ("--format", "xml"): "accord: --format is csv or ndjson",
}


def test_what_is_wrong_is_shown_in_a_line(accord: Accord, tmp_path: Path) -> None:
    file = written(tmp_path / "people.csv", PEOPLE)
    done = {arguments: accord.run(file, "--source", "fair", *arguments) for arguments in WRONG}
    assert {arguments: one.stderr.strip() for arguments, one in done.items()} == WRONG
    assert {one.returncode for one in done.values()} == {1}


def test_a_name_that_tells_nothing_needs_a_format(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "accord_local.cli",
        "import",
        written(tmp_path / "people.xlsx", "x"),
        "--source",
        "a",
    ]
    options = ["--url", "http://127.0.0.1:1", "--key", "acc_x"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (
        1,
        f"accord: {tmp_path}/people.xlsx: say what it is with --format csv or --format ndjson\n",
    )


def test_a_column_may_have_an_equals_sign() -> None:
    assert parse_mapping(["a=b=email"]) == '{"a=b": "email"}'


@pytest.mark.skipif(not OLIST.exists(), reason="the leads of Olist do not lie beside the checkout")
@pytest.mark.slow
async def test_the_leads_of_olist_are_imported_as_they_are_and_again_without_effect(accord: Accord) -> None:
    first = accord.run(str(OLIST), "--source", "none", *OLIST_MAPPING)
    assert first.returncode == 0, first.stderr
    leads = "SELECT lead_id, source, captured_at, external_keys, sequence, recorded_at FROM lead ORDER BY lead_id"
    events = "SELECT count(*) FROM outbox WHERE type LIKE 'lead.%'"
    before = [await accord.rows(sql) for sql in (leads, events, "SELECT * FROM identity_key ORDER BY 1, 2")]
    assert len(before[0]) == 8_000
    by_source: dict[str, int] = {}
    for row in before[0]:
        by_source[str(row["source"])] = by_source.get(str(row["source"]), 0) + 1
    assert by_source["organic search"] == 2_296
    assert by_source["none"] == 60
    headers = {"Authorization": f"Bearer {accord.key}"}
    async with httpx.AsyncClient(base_url=accord.url, headers=headers, trust_env=False) as http:
        found = (await http.get("/v1/leads", params={"external": f"social:{ONE_OF_THEM}"})).json()["items"]
        assert [lead["captured_at"] for lead in found] == ["2018-02-01T00:00:00Z"]
        second = accord.run(str(OLIST), "--source", "none", *OLIST_MAPPING)
        assert second.returncode == 0, second.stderr
        latest = (await http.get("/v1/imports")).json()["items"][0]
    assert (latest["rows"]["read"], latest["rows"]["unchanged"]) == (8_000, 8_000)
    assert [await accord.rows(sql) for sql in (leads, events, "SELECT * FROM identity_key ORDER BY 1, 2")] == before
