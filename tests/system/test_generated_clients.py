"""A client that openapi-python-client makes of each service's document can be used: every operation is there, and the answers fit the
models. And no operation passes over a query parameter that it does not have.
"""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.system.running import Running

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

REQUEST_TIMEOUT_S = 30.0
SERVICES = ("intake", "qualification", "sla_monitor", "metrics")
METHODS = ("get", "put", "post", "patch", "delete", "options")


class Clients:
    """The generated packages, by service."""

    def __init__(self, folder: Path, accord: Running) -> None:
        self._folder = folder
        self._accord = accord
        self._said: dict[str, str] = {}

    def generate(self, service: str) -> str:
        """Write the package, once; what the generator said."""
        if service in self._said:
            return self._said[service]
        document = self._folder / f"{service}.json"
        document.write_bytes(fetch_document(self._accord, service))
        config = self._folder / "config.yaml"
        config.write_text("post_hooks: []\n")
        done = subprocess.run(
            [
                *(Path(sys.executable).parent / "openapi-python-client", "generate", "--meta", "none"),
                *("--path", document, "--output-path", self._folder / f"client_{service}", "--config", config),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return self._said.setdefault(service, done.stdout + done.stderr)

    def module(self, service: str, name: str) -> ModuleType:
        return importlib.import_module(f"client_{service}.{name}")

    def connect(self, service: str, key: str) -> Any:
        client = self.module(service, "client").AuthenticatedClient
        return client(base_url=getattr(self._accord.urls, service), token=key, raise_on_unexpected_status=True)


@pytest.fixture(scope="module")
def clients(accord: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("clients")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield Clients(folder, accord)


def fetch_document(accord: Running, service: str) -> bytes:
    url = f"{getattr(accord.urls, service)}/openapi.json"
    return requests.get(url, timeout=REQUEST_TIMEOUT_S).content


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_is_generated(service: str, accord: Running, clients: Clients) -> None:
    said = clients.generate(service)
    document = json.loads(fetch_document(accord, service))
    names = {operation["operationId"] for _, _, operation in operations_of(document)}
    made = {path.stem for path in Path(clients.module(service, "api").__path__[0]).glob("*/*.py")} - {"__init__"}
    assert made == names
    # Bodies that are text of another form (YAML, NDJSON) are left out; the same operations take JSON or bytes too.
    warnings = [line for line in said.splitlines() if line.startswith("Unsupported content type")]
    assert all(line.endswith(("application/yaml", "application/x-ndjson", "text/csv")) for line in warnings)
    assert "not be generated" not in said


def test_clients_submit_import_and_read(accord: Running, clients: Clients) -> None:
    for service in SERVICES:
        clients.generate(service)
    models = clients.module("intake", "models")
    with clients.connect("intake", accord.keys["marketing"]) as intake:
        person = models.Submission.from_dict({"source": "generated", "email": f"ada-{uuid4()}@initech.example"})
        captured = clients.module("intake", "api.leads.submit_lead").sync(client=intake, body=person)
        assert captured.outcome == "created"
        lead = clients.module("intake", "api.leads.get_lead").sync(client=intake, lead_id=captured.lead_id)
        assert lead.lead_id == captured.lead_id
        import_file = clients.module("intake", "api.imports.import_file").sync
        csv = models.ImportFileFormat("csv")
        job = import_file(client=intake, body=table_file(clients), source="generated", format_=csv)
        assert isinstance(job, models.ImportOut)
        refused = import_file(client=intake, body=table_file(clients), source="generated")
        assert isinstance(refused, models.ProblemDocument)
        assert refused.errors[0].parameter == "format"
    for service, name in (
        ("qualification", "api.leads.list_leads"),
        ("sla_monitor", "api.clocks.list_clocks"),
        ("metrics", "api.notifications.list_subscriptions"),
    ):
        with clients.connect(service, accord.keys["admin"]) as client:
            page = clients.module(service, name).sync(client=client, limit=1)
        assert isinstance(page.items, list)


def table_file(clients: Clients) -> Any:
    """A file as the generated client of intake sends one."""
    return clients.module("intake", "types").File(io.BytesIO(b"email,title\ngrace@globex.example,CTO\n"))


@pytest.mark.parametrize("service", SERVICES)
def test_no_operation_passes_over_a_parameter(service: str, accord: Running) -> None:
    base = getattr(accord.urls, service)
    headers = {"Authorization": f"Bearer {accord.keys['admin']}"}
    passed_over = []
    for method, path, _operation in operations_of(json.loads(fetch_document(accord, service))):
        if path.startswith("/v1/hooks/"):
            continue  # a tool's own call, with what the tool adds
        url = base + path.replace("{", "").replace("}", "")
        answer = requests.request(method, f"{url}?no_such=1", headers=headers, timeout=REQUEST_TIMEOUT_S)
        if answer.status_code != 422 or answer.json()["errors"][0].get("parameter") != "no_such":
            passed_over.append((method, path, answer.status_code, answer.text[:200]))
    assert not passed_over
