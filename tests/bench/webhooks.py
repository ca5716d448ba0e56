"""Webhooks: how many a core proves and reads, tool by tool, beside the reference library with json.loads, which maps nothing; and how many
a hook takes over HTTP until they are saved, beside the same people by POST /v1/leads.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode

import httpx
from standardwebhooks.webhooks import Webhook

from intake.hooks.domain.payload_mapping import PayloadMapper
from intake.hooks.domain.validation import SUBMISSIONS, validate_document
from intake.hooks.service.body import parse_hook_body
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import HookRequest, Submitted
from intake.sources.domain.mapping import FieldMapping
from tests.bench.environment import BenchEnvironment
from tests.bench.load import Load
from tests.bench.meter import Meter
from tests.bench.report import Figure, median

ROUNDS = 5
ROUND_S = 0.8
PER_S_MIN = 3_000.0
CONNECTIONS = 64
LOAD_S = 4.0
SOURCE = "bench-hook"
_KEY = b"k" * 32
_WHSEC = "whsec_" + base64.b64encode(_KEY).decode()
_PERSON = {
    "email": "ada@initech.example",
    "phone": "+12025550143",
    "first_name": "Ada",
    "last_name": "Byron",
    "company": "Initech",
}


@dataclass(frozen=True)
class _Case:
    """One tool's call, and how its signature is made: the baseline of tools without a library of theirs."""

    tool: str
    secret: str
    use: str
    request: HookRequest
    baseline: Callable[[], object]


def webhooks(bench: BenchEnvironment) -> list[Figure]:
    """The figures."""
    return [*(_measure_verification(case) for case in _cases()), _measure_requests(bench)]


def _measure_verification(case: _Case) -> Figure:
    """From the raw request to a checked submission, nothing cached between two calls."""
    adapter = ADAPTERS[case.tool]
    settings, taking = adapter.settings(), PayloadMapper.build(adapter, FieldMapping(), {})
    secrets = {case.use: [case.secret.encode()]}
    now = datetime.now(UTC)

    def ours() -> None:
        if not adapter.verify(case.request, secrets, settings, now).is_verified:
            raise RuntimeError(f"{case.tool}: not proved")
        _, document, _ = parse_hook_body(adapter, case.request, 10**7)
        for said in adapter.read(case.request, document, settings):
            if isinstance(said, Submitted):
                validated = validate_document(SUBMISSIONS, {**taking.map_submission(said.view), "source": "bench"}, now)
                if validated.value is None:
                    raise RuntimeError(f"{case.tool}: {validated.errors}")

    rounds: dict[str, list[float]] = {"ours": [], "baseline": []}
    for _ in range(ROUNDS):
        for who, act in (("ours", ours), ("baseline", case.baseline)):
            rounds[who].append(_per_cpu_s(act))
    rates = {who: median(found) for who, found in rounds.items()}
    return Figure(
        f"webhook proved and read: {case.tool}",
        "calls/s of a core",
        rates["ours"],
        rates["baseline"],
        least=PER_S_MIN,
        cpu_us={who: 1e6 / rate for who, rate in rates.items()},
        limit="Python: the mapping and the form of a submission; the baseline maps nothing",
        detail={**rounds, "body_bytes": len(case.request.body)},
    )


def _per_cpu_s(act: Callable[[], object]) -> float:
    """Calls in a second of processor time, so that what else the machine does hardly counts."""
    calls, began, until = 0, time.process_time(), time.monotonic() + ROUND_S
    while time.monotonic() < until:
        for _ in range(50):
            act()
        calls += 50
    return calls / (time.process_time() - began)


def _measure_requests(bench: BenchEnvironment) -> Figure:
    """Over HTTP until saved: 64 connections post to a hook, and the same to POST /v1/leads."""
    with bench.service("intake", role="api") as service:
        headers = {"Authorization": f"Bearer {bench.keys['ACCORD_ADMIN_KEY']}"}
        with httpx.Client(base_url=service.url, headers=headers, trust_env=False) as client:
            client.put(f"/v1/sources/{SOURCE}", json={"adapter": "generic"}).raise_for_status()
        rounds: dict[str, list[dict[str, object]]] = {"ours": [], "baseline": []}
        rates: dict[str, list[float]] = {"ours": [], "baseline": []}
        cpu: dict[str, list[float]] = {"ours": [], "baseline": []}
        for _ in range(ROUNDS):
            for who, path in (("ours", f"/v1/hooks/{SOURCE}"), ("baseline", "/v1/leads")):
                bench.settle()
                load = Load(
                    service.port,
                    bench.keys["ACCORD_MARKETING_KEY"],
                    bench.next_run(),
                    path=path,
                    connections=CONNECTIONS,
                    seconds=LOAD_S,
                )
                meter = Meter((service.pid or 0, bench.postgres_pid))
                measured = bench.load(load)
                meter.stop()
                share = load.seconds / (load.seconds + load.warm_up_s)
                rates[who].append(measured.rows_per_s)
                cpu[who].append(meter.cpu_s * share / max(1, measured.rows) * 1e6)
                rounds[who].append(
                    {
                        "rows_per_s": round(measured.rows_per_s),
                        "p50_ms": round(measured.percentile_ms(0.5), 1),
                        "p99_ms": round(measured.percentile_ms(0.99), 1),
                        "statuses": measured.statuses,
                        "others_cores": round(meter.others_cores, 2),
                    }
                )
    return Figure(
        "POST /v1/hooks/…, 64 connections (baseline: POST /v1/leads)",
        "events/s",
        median(rates["ours"]),
        median(rates["baseline"]),
        cpu_us={who: median(found) for who, found in cpu.items()},
        limit="Python's processor time in intake's process; each event has an idempotency key, the baseline's has none",
        detail=dict(rounds),
    )


def _cases() -> list[_Case]:
    at = datetime.now(UTC)
    return [_standard(at), _typeform(), _mautic(), _segment(), _mailchimp()]


def _request(body: bytes, headers: dict[str, str], **more: str) -> HookRequest:
    content = {"content-type": "application/json", "host": "bench", "user-agent": "tool", **headers}
    return HookRequest("POST", "http://bench/v1/hooks/bench", {}, content, body, **more)


def _standard(at: datetime) -> _Case:
    body = json.dumps(
        {"type": "contact.created", "timestamp": at.isoformat(), "data": {"id": "42", **_PERSON}}
    ).encode()
    webhook = Webhook(_WHSEC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": webhook.sign("msg_1", at, body.decode()),
    }
    return _Case("standard-webhooks", _WHSEC, "signing", _request(body, headers), lambda: webhook.verify(body, headers))


def _checked(body: bytes, given: bytes, digest: str) -> object:
    """What whoever has no library writes."""
    if not hmac.compare_digest(hmac.new(_KEY, body, digest).digest(), given):
        raise RuntimeError("not proved")
    return json.loads(body)


def _typeform() -> _Case:
    answers = [{"type": "text", "text": value, "field": {"id": name, "ref": name}} for name, value in _PERSON.items()]
    answers[0] = {"type": "email", "email": _PERSON["email"], "field": {"id": "e", "ref": "email", "type": "email"}}
    response = {
        "form_id": "f",
        "token": "t",
        "submitted_at": "2026-01-04T09:30:00Z",
        "hidden": {"utm_campaign": "spring"},
        "answers": answers,
    }
    body = json.dumps({"event_id": "e1", "event_type": "form_response", "form_response": response}).encode()
    digest = hmac.digest(_KEY, body, hashlib.sha256)
    headers = {"typeform-signature": "sha256=" + base64.b64encode(digest).decode()}
    return _Case(
        "typeform", _KEY.decode(), "signing", _request(body, headers), lambda: _checked(body, digest, "sha256")
    )


def _mautic() -> _Case:
    names = {
        "email": "email",
        "phone": "phone",
        "first_name": "firstname",
        "last_name": "lastname",
        "company": "company",
    }
    core = {alias: {"id": "1", "alias": alias, "type": "text", "value": _PERSON[name]} for name, alias in names.items()}
    core |= {
        f"custom_{number}": {"id": str(number), "alias": f"custom_{number}", "value": None} for number in range(20)
    }
    event = {"contact": {"id": 52, "points": 5, "fields": {"core": core}}, "timestamp": "2026-01-04T09:30:00+00:00"}
    body = json.dumps({"mautic.lead_post_save_new": [event]}).encode()
    digest = hmac.digest(_KEY, body, hashlib.sha256)
    headers = {"webhook-signature": base64.b64encode(digest).decode()}
    return _Case("mautic", _KEY.decode(), "signing", _request(body, headers), lambda: _checked(body, digest, "sha256"))


def _segment() -> _Case:
    traits = {
        "email": _PERSON["email"],
        "firstName": "Ada",
        "lastName": "Byron",
        "company": {"name": "Initech", "employee_count": 250},
    }
    message = {
        "type": "identify",
        "userId": "42",
        "messageId": "m1",
        "timestamp": "2026-01-04T09:30:00Z",
        "traits": traits,
        "context": {"campaign": {"name": "spring"}},
    }
    body = json.dumps(message).encode()
    digest = hmac.digest(_KEY, body, hashlib.sha1)
    return _Case(
        "segment",
        _KEY.decode(),
        "signing",
        _request(body, {"x-signature": digest.hex()}),
        lambda: _checked(body, digest, "sha1"),
    )


def _mailchimp() -> _Case:
    fields = {
        "type": "subscribe",
        "fired_at": "2026-01-04 09:30:00",
        "data[id]": "8a25",
        "data[email]": _PERSON["email"],
    }
    fields |= {
        f"data[merges][{tag}]": value
        for tag, value in {"EMAIL": _PERSON["email"], "FNAME": "Ada", "LNAME": "Byron"}.items()
    }
    body = urlencode(fields).encode()
    secret = "s" * 20

    def baseline() -> object:
        return parse_qs(body.decode()) if hmac.compare_digest(secret, "s" * 20) else None

    return _Case("mailchimp", secret, "url", _request(body, {}, path_secret=secret), baseline)
