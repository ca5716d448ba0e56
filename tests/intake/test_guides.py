"""The guides on sources do what they say: every command in them is run, in its order, against a running intake; every table of fields
is the one that the code has; every adapter has its page.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.intake.conftest import KEYS
from tests.intake.hook_service import SEALING_KEY
from tests.intake.processes import intake_process

from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import AnyAdapter
from intake.sources.domain.mapping import Const, Rule

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
PAGES = GUIDES / "sources"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREAMBLE = 'set -euo pipefail\ncurl() { command curl -sS --fail-with-body --noproxy "*" "$@"; }\n'
EXPECTED = {
    "standard-webhooks": ["taken"],
    "cloudevents": ["taken", "taken"],
    "hubspot": ["waiting"],
    "mautic": ["taken"],
    "mailchimp": ["taken"],
    "typeform": ["taken"],
    "meta-lead-ads": ["waiting"],
    "linkedin-lead-gen": ["waiting"],
    "segment": ["taken", "recorded"],
    "marketo": ["taken"],
    "generic": ["taken", "taken"],
}


@pytest.fixture
async def address(database_url: str, keys_file: Path) -> AsyncIterator[str]:
    """Intake as a process of its own, as users have it."""
    async with intake_process("api", database_url, keys_file, secrets_keys=SEALING_KEY) as intake:
        yield intake.url


async def said_by(page: str, address: str) -> str:
    """What the commands of a page print, one after the other in one shell."""
    script = PREAMBLE + "\n".join(BLOCK.findall(page))
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        env={**os.environ, "INTAKE": address, "KEY": KEYS["marketing"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_every_command_of_every_page_works(address: str) -> None:
    for name, outcomes in EXPECTED.items():
        said = await said_by((PAGES / f"{name}.md").read_text(), address)
        found = re.findall(r'"outcome":"([a-z]+)"', said)
        # The pages speak of the same people, so all but the first know them already.
        assert ["taken" if one in ("created", "updated", "merged") else one for one in found] == outcomes, said


async def test_every_command_of_the_guide_works(address: str) -> None:
    said = await said_by((GUIDES / "connect-a-source.md").read_text(), address)
    assert '"name":"demo-form"' in said
    assert "the new secret" not in said


def test_every_adapter_has_its_page_and_the_guide_leads_to_it() -> None:
    guide = (GUIDES / "connect-a-source.md").read_text()
    for name in ADAPTERS:
        assert (PAGES / f"{name}.md").is_file(), name
        assert f"(sources/{name}.md)" in guide
        assert f"`{name}`" in guide
    assert {path.stem for path in PAGES.glob("*.md")} == set(ADAPTERS) == set(EXPECTED)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_the_table_of_fields_is_that_of_the_code(adapter: AnyAdapter) -> None:
    text = (PAGES / f"{adapter.name}.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (`/.*?) \|$", text, re.MULTILINE)
    assert {target: set(re.findall(r"`([^`]+)`", places)) for target, places in rows} == {
        target: set(_pointers(rule)) for target, rule in adapter.fields.items()
    }
    for place in adapter.attribute_sources:
        assert f"`{place}`" in text
    for setting in adapter.settings.model_fields:
        assert f"`{setting}`" in text or f'"{setting}"' in text, setting
    for use in adapter.secret_kinds:
        assert f"`{use}`" in text or f'"{use}"' in text, use


def _pointers(rule: Rule) -> tuple[str, ...]:
    assert not isinstance(rule, Const)
    return (rule,) if isinstance(rule, str) else rule
