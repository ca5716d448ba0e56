"""A link to a version on paper needs no key, leads to that version alone, and ends: by its days, or with the key that made it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from shared_kit import CONTENT, KEYS, Kit, auth, service_kit, until, write_keys

from accord.agreements.paper_links import InvalidLink, NoEncryptionKey, PaperLinks

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
SECRET = SecretStr(base64.b64encode(b"k" * 32).decode())
PAPER = "/v1/policy/versions/1/paper"


@pytest.fixture
async def shop(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    async with service_kit(kit_database, tmp_path, secrets_keys=SECRET) as built:
        made = await built.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
        assert made.status_code == 201
        yield built


async def make_link(shop: Kit, **wish: int) -> str:
    answer = await shop.client.post(f"{PAPER}-links", json=wish, headers=auth("marketing"))
    assert answer.status_code == 201, answer.text
    url: str = answer.json()["url"]
    return url


async def test_link_opens_the_paper_without_a_key(shop: Kit) -> None:
    url = await make_link(shop)
    assert url.startswith(f"http://kit{PAPER}?link=")
    page = await shop.client.get(url)
    assert page.status_code == 200
    assert CONTENT["title"] in page.text
    assert (await shop.client.get(url, headers={"Accept": "text/markdown"})).text.startswith("# ")
    assert (await shop.client.get(PAPER)).status_code == 401


async def test_link_opens_nothing_else(shop: Kit) -> None:
    token = (await make_link(shop)).partition("link=")[2]
    second = await shop.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    assert second.json()["version"] == 2
    other = await shop.client.get(f"/v1/policy/versions/2/paper?link={token}")
    assert (other.status_code, other.json()["type"]) == (403, "/problems/link-not-valid")
    assert (await shop.client.get(f"/v1/policy/versions/1?link={token}")).status_code == 401
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await shop.client.get("/v1/policy/versions/1", headers=bearer)).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "A" * 200, "A" * 1_000, "%00", "a%20b", "%F0%9F%92%A9"])
async def test_what_is_no_link_is_refused(shop: Kit, token: str) -> None:
    assert (await shop.client.get(f"{PAPER}?link={token}")).status_code in (400, 403)


async def test_link_ends_with_the_key_that_made_it(shop: Kit, tmp_path: Path) -> None:
    url = await make_link(shop)
    assert (await shop.client.get(url)).status_code == 200
    write_keys(tmp_path / "keys.yaml", {name: entry for name, entry in KEYS.items() if name != "marketing"})

    async def is_refused() -> bool:
        return (await shop.client.get(url)).status_code == 403

    await until(is_refused)


@pytest.mark.parametrize("days", [0, 31, -1])
async def test_life_of_a_link_is_bounded(shop: Kit, days: int) -> None:
    answer = await shop.client.post(f"{PAPER}-links", json={"days": days}, headers=auth("marketing"))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/days")


async def test_no_link_leads_to_a_version_that_is_not_there(shop: Kit) -> None:
    answer = await shop.client.post("/v1/policy/versions/7/paper-links", headers=auth("marketing"))
    assert answer.status_code == 404


async def test_without_encryption_keys_there_are_no_links(kit: Kit) -> None:
    await kit.client.post("/v1/policy/versions", json=CONTENT, headers=auth("marketing"))
    answer = await kit.client.post(f"{PAPER}-links", headers=auth("marketing"))
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/no-encryption-key")


def test_link_is_read_until_its_last_moment_and_by_its_own_keys() -> None:
    links = PaperLinks([b"k" * 32])
    token, until = links.make("sla", 3, "ann", NOW, 7)
    assert until == NOW + timedelta(days=7)
    assert links.read(token, "sla", "3", until - timedelta(microseconds=1)) == "ann"
    for reader, kind, version, moment in (
        (links, "sla", "3", until),
        (links, "sla", "4", NOW),
        (links, "plan", "3", NOW),
        (PaperLinks([b"o" * 32]), "sla", "3", NOW),
        (PaperLinks([]), "sla", "3", NOW),
    ):
        with pytest.raises(InvalidLink):
            reader.read(token, kind, version, moment)
    assert PaperLinks([b"n" * 32, b"k" * 32]).read(token, "sla", "3", NOW) == "ann"
    with pytest.raises(NoEncryptionKey):
        PaperLinks([]).make("sla", 3, "ann", NOW, 7)
