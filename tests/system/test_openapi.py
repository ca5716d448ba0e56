"""Whatever the four OpenAPI documents allow or forbid can be sent: nobody answers with a 5xx, and every answer is one that
its document describes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.effort import cases
from tests.system.running import Running

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES_MAX = int(os.environ.get("ACCORD_FUZZ_EXAMPLES", cases(7, 3)))
"""Per operation and way of generating. They are the same each time; a long run with more finds what few do not."""
REQUEST_TIMEOUT_S = 30.0
FAILURES_SHOWN_MAX = 20
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SERVICES = ("intake", "qualification", "sla_monitor", "metrics")


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_answers_as_its_document_says(service: str, accord: Running) -> None:
    url = getattr(accord.urls, service)
    failures: dict[str, str] = {}
    with requests.Session() as session:
        # A key with every scope and no department: it can ask for everything, but it signs nothing.
        session.headers["Authorization"] = f"Bearer {accord.keys['admin']}"
        session.trust_env = False
        for operation in operations_of(url, session):
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                for problem, how in failures_of(operation, mode, url, session):
                    failures.setdefault(f"{operation.label}: {problem}", how)
        assert session.get(f"{url}/livez", timeout=REQUEST_TIMEOUT_S).status_code == requests.codes.ok
    shown = [f"{problem}\n{how}" for problem, how in list(failures.items())[:FAILURES_SHOWN_MAX]]
    assert not failures, f"{len(failures)} problems\n" + "\n".join(shown)


def operations_of(url: str, session: requests.Session) -> Iterator[APIOperation]:
    """The operations of a live document; one that cannot be read is a failure."""
    document = session.get(f"{url}/openapi.json", timeout=REQUEST_TIMEOUT_S).json()
    for found in openapi.from_dict(document).get_all_operations():
        yield found.ok()


def failures_of(
    operation: APIOperation, mode: GenerationMode, url: str, session: requests.Session
) -> list[tuple[str, str]]:
    """What is wrong with the answers to generated requests, each kind with one request that shows it."""
    found: dict[str, str] = {}

    @settings(
        max_examples=EXAMPLES_MAX,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers_as_described(case: Case) -> None:
        response = case.call(url, session=session, timeout=REQUEST_TIMEOUT_S)
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                found.setdefault(_kind_of(failure, response.status_code), f"{case.as_curl_command()}\n{failure}")

    answers_as_described()
    return list(found.items())


def _kind_of(failure: BaseException, status: int) -> str:
    title = failure.title if isinstance(failure, Failure) else type(failure).__name__
    return f"{title} ({status})"
