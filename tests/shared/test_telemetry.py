"""Logs are JSON, one line an event, joined by request and trace, and hold no secret and nobody's data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from pydantic import BaseModel
from shared_kit import CONTENT, Kit, auth, service_kit
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from accord.metric_names import REGISTRY
from accord.telemetry import REDACTED, RepeatLimiter, configure_logging, redact
from accord.tracing import current_traceparent


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    configure_logging("debug", service="kit")

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return read


def test_an_event_is_one_line_of_json(lines: Any) -> None:
    structlog.get_logger("x").info("lead_captured", lead_id="1", text="two\nlines")
    line = lines()[0]
    assert (line["event"], line["level"], line["service"], line["logger"]) == ("lead_captured", "info", "kit", "x")
    assert line["timestamp"].endswith("Z")


def test_libraries_log_through_the_same_lines(lines: Any) -> None:
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 1)
    logging.getLogger("aiokafka").error("connect to kafka://user:hunter2@host failed")
    first, second = lines()
    assert first["event"] == "Started server process [1]"
    assert "hunter2" not in json.dumps(second)


def test_an_exception_in_a_librarys_log_is_described_and_not_quoted(lines: Any) -> None:
    try:
        int("ada@initech.example")
    except ValueError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    line = lines()[0]
    assert line["error"] == "ValueError"
    assert "initech" not in json.dumps(line)


def test_a_long_text_is_cut_and_nothing_at_the_cut_passes(lines: Any) -> None:
    structlog.get_logger("x").info("long", text="x " * 990 + "ada@initech.example" * 3 + " y" * 5_000)
    line = lines()[0]
    assert len(line["text"]) <= 2_000
    assert "initech" not in line["text"]


SECRETS = {
    "authorization": "Bearer abc.def",
    "api_key": "k",
    "password": "p",
    "sasl_password": "p",
    "client_secret": "s",
    "token": "t",
    "cookie": "c",
    "body": "b",
    "email": "ada@initech.example",
    "phone": "+12025550143",
    "first_name": "Ada",
}


def test_secrets_and_personal_data_are_redacted(lines: Any) -> None:
    log = structlog.get_logger("x")
    log.info("with", **SECRETS)
    log.info("nested", request={"headers": [SECRETS, "Authorization: Bearer abc.def"]})
    log.info(
        "mail to ada@initech.example", url="postgresql+asyncpg://intake:hunter2@db/intake", key=("ada@initech.example",)
    )
    out = json.dumps(lines())
    for secret in ("abc.def", "initech", "12025550143", "Ada", "hunter2"):
        assert secret not in out
    assert "db/intake" in out


@given(st.dictionaries(st.sampled_from(sorted(SECRETS)), st.text(min_size=6, max_size=20)))
def test_no_value_under_a_secret_name_passes(values: dict[str, str]) -> None:
    redacted = redact(None, "info", {"event": "x", "outer": dict(values), **values})
    assert all(redacted[name] == REDACTED == redacted["outer"][name] for name in values)


def test_a_stack_trace_names_places_and_quotes_nothing(lines: Any) -> None:
    class Person(BaseModel):
        age: int

    def fail(email: str) -> None:
        Person.model_validate({"age": email})

    try:
        try:
            fail("ada@initech.example")
        except ValueError as error:
            raise RuntimeError("could not read the person") from error
    except RuntimeError:
        structlog.get_logger("x").exception("failed")
    line = lines()[0]
    assert line["error"] == "RuntimeError: could not read the person <- ValidationError"
    assert any("test_telemetry.py" in frame for frame in line["stack"])
    assert "initech" not in json.dumps(line)


async def test_an_error_of_the_database_is_named_without_the_row(kit: Kit, lines: Any) -> None:
    async with kit.database.write_transaction() as unit_of_work:
        await unit_of_work.conn.execute(text("CREATE TABLE person (email text CONSTRAINT person_email_key UNIQUE)"))

    async def insert() -> None:
        async with kit.database.write_transaction() as unit_of_work:
            await unit_of_work.conn.execute(text("INSERT INTO person VALUES (:e)"), {"e": "ada@initech.example"})

    await insert()
    with pytest.raises(IntegrityError) as caught:
        await insert()
    assert caught.value.orig is not None
    structlog.get_logger("x").error("failed", exc_info=caught.value)
    out = json.dumps(lines())
    assert "23505" in out
    assert "initech" not in out
    assert asyncpg.UniqueViolationError.__name__ in out or "IntegrityError" in out


async def test_a_request_is_joined_with_its_log_lines_its_trace_and_its_events(
    kit_database: str, tmp_path: Path, lines: Any
) -> None:
    router = APIRouter()

    @router.get("/trace")
    async def traced() -> str | None:
        structlog.get_logger("x").info("inside")
        return current_traceparent()

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "X-Request-Id": "r-1", **auth("marketing")}
    async with service_kit(kit_database, tmp_path, router) as shop:
        assert trace_id in (await shop.client.get("/trace", headers=headers)).json()
        own = (await shop.client.get("/trace")).json()
        assert own is not None
        assert trace_id not in own
        for bad in ("00-0-0-0", "x", "00-" + "0" * 32 + "-" + "0" * 16 + "-00", "ö"):
            assert (await shop.client.get("/trace", headers={"traceparent": bad.encode("latin-1")})).status_code == 200
        await shop.client.post("/v1/policy/versions", json=CONTENT, headers=headers)
        await shop.client.post("/v1/policy/versions/1/propose", headers=headers)
        async with shop.database.read_transaction() as conn:
            saved = (await conn.exec_driver_sql("SELECT traceparent FROM outbox")).scalar_one()
        assert trace_id in saved
    inside = [line for line in lines() if line["event"] == "inside"]
    assert (inside[0]["trace_id"], inside[0]["request_id"]) == (trace_id, "r-1")
    assert not trace.get_current_span().get_span_context().is_valid


async def test_metrics_count_by_route_template_and_never_by_what_was_asked(kit: Kit) -> None:
    for path in ("/v1/policy/versions/77", "/v1/policy/versions/78", "/made-up/ada@initech.example"):
        await kit.client.get(path, headers=auth("reader"))
    await kit.client.request("BREW", "/v1/policy")
    routes = {
        sample.labels["route"]
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "accord_http_requests_total"
    }
    assert "/v1/policy/versions/{version}" in routes
    assert not any("77" in route or "initech" in route for route in routes)
    text_ = (await kit.client.get("/metrics")).text
    assert "process_resident_memory_bytes" in text_
    assert "BREW" not in text_


class Time:
    """A clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        [self.handler] = [handler for handler in logging.getLogger().handlers if hasattr(handler, "_limiter")]
        self.limiter: RepeatLimiter = self.handler._limiter
        monkeypatch.setattr(self.limiter, "_clock", lambda: self.now_s)


@pytest.fixture
def time(lines: Any, monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def counted(found: list[dict[str, Any]]) -> int:
    """For how many occurrences these lines stand."""
    return sum(1 + line.get("repeated", 0) for line in found)


def test_a_failure_that_repeats_is_written_at_once_and_then_every_ten_seconds_with_its_count(
    lines: Any, time: Time
) -> None:
    for tick in range(6_000):  # a minute at a hundred a second, as aiokafka and a retry loop have it in an outage
        time.now_s = tick / 100
        logging.getLogger("aiokafka").error("Unable connect to node with id %s", 1)
        structlog.get_logger("x").warning("round_failed", error="KafkaConnectionError", attempt=tick, waited_s=tick / 7)
    found = lines()
    assert len(found) == 12
    assert found[0]["event"] == "Unable connect to node with id 1"
    assert all("repeated" not in line for line in found[:2])
    assert all(line["repeated"] > 990 for line in found[2:])
    time.handler.close()
    assert counted(found + lines()) == 12_000


def test_what_is_held_back_is_logged_with_the_next_line(lines: Any, time: Time) -> None:
    for _ in range(5):
        structlog.get_logger("x").warning("round_failed", error="TimeoutError")
    time.now_s = 10.0
    structlog.get_logger("y").info("recovered")
    found = lines()
    assert [(line["event"], line.get("repeated")) for line in found] == [
        ("round_failed", None),
        ("round_failed", 3),
        ("recovered", None),
    ]


def test_lines_that_differ_are_all_written(lines: Any, time: Time) -> None:
    log = structlog.get_logger("x")
    for offset in range(50):
        log.error("event_dead_lettered", topic="intake-events", partition=1, offset=offset)
        log.info("done")
    for error in ("TimeoutError", "OSError"):
        log.warning("round_failed", error=error)
        structlog.get_logger("y").warning("round_failed", error=error)
        logging.getLogger("aiokafka").warning("Failed: %s", error)
    assert len(lines()) == 106


def test_what_is_remembered_is_bounded_and_loses_no_count(lines: Any, time: Time) -> None:
    log = structlog.get_logger("x")
    for number in range(5_000):
        log.warning("failed", number=number)
        log.warning("failed", number=number)
    assert len(time.limiter._windows) <= 1_000
    time.handler.close()
    assert counted(lines()) == 10_000
