"""A source is configured by an admin; its secrets go in, are sealed, and never come out; two of one use are valid while a tool is changed
over; what does not fit is refused with its place.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from tests.intake.hook_service import SEALING_KEY, HookClient, running_hook_client, settings_of
from tests.intake.tools import TOOLS

from accord.secrets import DecryptionFailed, NoEncryptionKey, SecretCipher, parse_keys

MAUTIC = TOOLS["mautic"]
OTHER_KEY = base64.urlsafe_b64encode(b"z" * 32).decode()


@pytest.fixture
async def intake(database_url: str, keys_file: Path) -> AsyncIterator[HookClient]:
    async with running_hook_client(database_url, keys_file) as one:
        yield one


def pointers(answer: Any) -> set[str]:
    assert answer.status_code == 422, answer.text
    return {error["pointer"] for error in answer.json()["errors"]}


async def test_a_source_is_made_read_changed_and_forgotten(intake: HookClient) -> None:
    body = {
        "adapter": "mautic",
        "settings": {"on_deletion": "erase"},
        "mapping": {"fields": {"title": "/fields/position"}, "columns": {"E-Mail": "email"}},
        "defaults": {"campaign.medium": "email"},
        "secrets": {"signing": MAUTIC.secret},
    }

    made = await intake.put("nurture mail", body)
    assert (made.status_code, made.json()["version"]) == (201, 1)
    found = (await intake.admin.get("/v1/sources/nurture mail")).raise_for_status()
    assert found.json() == made.json()
    assert found.json()["hook_path"] == "/v1/hooks/nurture%20mail"
    assert set(found.json()["secrets"]["signing"][0]) == {"id", "set_at", "until"}
    assert found.headers["etag"] == made.headers["etag"]
    unchanged = await intake.admin.http.get(
        "/v1/sources/nurture mail", headers={"If-None-Match": found.headers["etag"]}
    )
    assert unchanged.status_code == 304

    changed = await intake.put(
        "nurture mail", {**body, "settings": {}, "secrets": {}}, **{"If-Match": found.headers["etag"]}
    )
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert len(changed.json()["secrets"]["signing"]) == 1, "secrets that are not named stay"

    gone = await intake.admin.http.delete("/v1/sources/nurture mail", headers={"If-Match": found.headers["etag"]})
    assert gone.status_code == 412
    gone = await intake.admin.http.delete("/v1/sources/nurture mail", headers={"If-Match": changed.headers["etag"]})
    assert gone.status_code == 204
    assert (await intake.admin.get("/v1/sources/nurture mail")).status_code == 404
    assert (await intake.admin.http.delete("/v1/sources/nurture mail")).status_code == 404


async def test_concurrent_changes_are_not_lost(intake: HookClient) -> None:
    first = await intake.put("s", {})
    assert (await intake.put("s", {})).status_code == 428
    assert (await intake.put("s", {}, **{"If-None-Match": "*"})).status_code == 412
    assert (await intake.put("new", {}, **{"If-Match": '"1-0"'})).status_code == 412
    assert (await intake.put("new", {}, **{"If-None-Match": "*"})).status_code == 201
    assert (await intake.put("s", {}, **{"If-None-Match": '"1"'})).status_code == 400
    assert (await intake.put("s", {}, **{"If-Match": first.headers["etag"]})).status_code == 200
    assert (await intake.put("s", {}, **{"If-Match": first.headers["etag"]})).status_code == 412


async def test_recreated_source_has_another_etag(intake: HookClient) -> None:
    first = await intake.put("s", {})
    await intake.admin.http.delete("/v1/sources/s")
    await intake.put("s", {})
    assert (await intake.put("s", {}, **{"If-Match": first.headers["etag"]})).status_code == 412


async def test_sources_are_listed_by_name_page_by_page(intake: HookClient) -> None:
    for name in ("c", "a", "b"):
        (await intake.put(name, {})).raise_for_status()
    page = (await intake.admin.get("/v1/sources", limit="2")).json()
    assert [one["name"] for one in page["items"]] == ["a", "b"]
    page = (await intake.admin.get("/v1/sources", limit="2", cursor=page["next_cursor"])).json()
    assert ([one["name"] for one in page["items"]], page["next_cursor"]) == (["c"], None)


async def test_only_an_admin_configures(intake: HookClient) -> None:
    for caller in ("reader", "public"):
        assert (await intake.caller(caller).get("/v1/sources")).status_code == 403
        assert (await intake.caller(caller).http.put("/v1/sources/s", json={})).status_code == 403
        assert (await intake.caller(caller).get("/v1/sources/s/events")).status_code == 403
    assert (await intake.plain.get("/v1/sources")).status_code == 401


async def test_no_answer_no_row_and_no_log_holds_a_secret(
    intake: HookClient, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "this-must-never-be-seen"
    answers = [
        await intake.put("s", {"adapter": "typeform", "secrets": {"signing": secret}}),
        await intake.put("t", {"adapter": "typeform", "secrets": {"signing": {"value": secret}}}),
        await intake.put("u", {"adapter": "mailchimp", "secrets": {"url": secret + "/ not fit"}}),
        await intake.put("v", {"adapter": "standard-webhooks", "secrets": {"signing": "whsec_" + secret}}),
        await intake.put("w", {"adapter": "typeform", "secrets": {"signing": [secret]}}),
        await intake.put("x", {"adapter": "typeform", "secrets": secret}),
        await intake.admin.get("/v1/sources"),
        await intake.admin.get("/v1/sources/s"),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 422, 422, 422, 422, 200, 200]
    for answer in answers:
        assert secret not in answer.text
    rows = await intake.rows("SELECT s::text AS whole FROM source s")
    assert len(rows) == 2
    assert not any(
        secret in row["whole"] or base64.b64encode(secret.encode()).decode()[:16] in row["whole"] for row in rows
    )
    seen = capsys.readouterr()
    assert secret not in seen.out + seen.err


async def test_a_secret_is_changed_over_with_two_valid_ones(intake: HookClient) -> None:
    await intake.connect("mautic", "s")

    async def change(secrets: dict[str, Any]) -> list[dict[str, Any]]:
        tag = (await intake.admin.get("/v1/sources/s")).headers["etag"]
        answer = await intake.put("s", {"adapter": "mautic", "secrets": secrets}, **{"If-Match": tag})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["secrets"].get("signing", [])
        return found

    async def statuses() -> list[int]:
        return [
            (await intake.send("mautic", "s", secret=secret)).status_code
            for secret in (MAUTIC.secret, "second", "third")
        ]

    assert await statuses() == [200, 401, 401]
    first = await change({"signing": "second"})
    assert await statuses() == [200, 200, 401]
    assert await change({"signing": "second"}) == first, "the same secret put again is no new one"
    assert len(await change({"signing": "third"})) == 2
    assert await statuses() == [401, 200, 200]
    assert len(await change({"signing": {"drop_previous": True}})) == 1
    assert await statuses() == [401, 401, 200]
    assert await change({"signing": {"value": MAUTIC.secret, "drop_previous": True}}) != []
    assert await statuses() == [200, 401, 401]
    assert await change({"signing": None}) == []
    assert await statuses() == [401, 401, 401], "without a secret a source is never open"


async def test_the_secret_before_is_valid_until_a_time(intake: HookClient) -> None:
    await intake.connect("mautic", "s")

    async def change(until: datetime) -> list[dict[str, Any]]:
        tag = (await intake.admin.get("/v1/sources/s")).headers["etag"]
        secrets = {"signing": {"value": "second", "previous_until": until.isoformat()}}
        answer = await intake.put("s", {"adapter": "mautic", "secrets": secrets}, **{"If-Match": tag})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["secrets"]["signing"]
        return found

    now = datetime.now(UTC)
    assert [one["until"] is None for one in await change(now + timedelta(hours=1))] == [True, False]
    assert (await intake.send("mautic", "s")).status_code == 200
    await change(now - timedelta(seconds=1))
    assert (await intake.send("mautic", "s")).status_code == 401
    assert (await intake.send("mautic", "s", secret="second")).status_code == 200


async def test_another_adapter_does_not_inherit_secrets(intake: HookClient) -> None:
    await intake.connect("mautic", "s")
    tag = (await intake.admin.get("/v1/sources/s")).headers["etag"]
    changed = await intake.put("s", {"adapter": "typeform"}, **{"If-Match": tag})
    assert changed.json()["secrets"] == {}


async def test_what_does_not_fit_is_refused_with_its_place(intake: HookClient) -> None:
    body = {
        "adapter": "hubspot",
        "settings": {"base_url": "ftp://x", "properties": ["Bad Name"], "other": 1},
        "mapping": {"fields": {"emial": "/a", "email": "a"}, "columns": {"Mail/1": "mail"}},
        "defaults": {"consent": "yes", "title": []},
        "secrets": {"url": "x", "signing": "", "token": " padded "},
    }
    assert pointers(await intake.put("s", body)) == {
        "/settings/base_url",
        "/settings/properties/0",
        "/settings/other",
        "/mapping/fields/emial",
        "/mapping/fields/email",
        "/mapping/columns/Mail~11",
        "/defaults/consent",
        "/defaults/title",
        "/secrets/url",
        "/secrets/signing",
        "/secrets/token",
    }
    assert pointers(await intake.put("s", {"adapter": "telegraph"})) == {"/adapter"}
    assert pointers(await intake.put("s", {"secrets": {"signing": "x"}, "settings": {"a": 1}})) == {
        "/secrets",
        "/settings",
    }
    assert pointers(await intake.put("s", {"adapter": "generic", "secrets": {"bearer": "too short"}})) == {
        "/secrets/bearer"
    }
    assert (await intake.put("s", {"unknown": 1})).status_code == 422
    assert (await intake.put("a@b", {})).status_code == 422
    assert (await intake.admin.get("/v1/sources/s")).status_code == 404, "nothing was written"


@pytest.mark.parametrize(
    "url",
    ["https://u:p@host", "https://host?x=1", "https://host#f", "https://", "host", "https://h:99999", "https://ü"],
)
async def test_a_base_url_is_scheme_and_host(intake: HookClient, url: str) -> None:
    assert pointers(await intake.put("s", {"adapter": "hubspot", "settings": {"public_base_url": url}})) == {
        "/settings/public_base_url"
    }


async def test_without_a_key_there_are_no_secrets_and_everything_else_works(database_url: str, keys_file: Path) -> None:
    async with running_hook_client(database_url, keys_file, secrets_keys=None) as intake:
        refused = await intake.put("s", {"adapter": "mautic", "secrets": {"signing": "x"}})
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/no-encryption-key")
        assert (await intake.put("s", {"adapter": "mautic", "mapping": {"columns": {"a": "email"}}})).status_code == 201
        assert (await intake.send("mautic", "s")).status_code == 401
        lead = await intake.marketing.post("/v1/leads", {"source": "s", "email": "ada@initech.example"})
        assert lead.status_code == 201


async def test_a_name_that_is_not_configured_still_works_for_submissions(intake: HookClient) -> None:
    assert (
        await intake.marketing.post("/v1/leads", {"source": "nobody's", "email": "a@initech.example"})
    ).status_code == 201


async def test_the_key_is_changed_without_losing_a_secret(database_url: str, keys_file: Path) -> None:
    async with running_hook_client(database_url, keys_file) as intake:
        await intake.connect("mautic", "s")
    async with running_hook_client(database_url, keys_file, secrets_keys=f"{OTHER_KEY}, {SEALING_KEY}") as intake:
        assert (await intake.send("mautic", "s")).status_code == 200
        before = await intake.rows("SELECT secrets::text AS sealed FROM source")
        worker = next(worker for worker in intake.service.workers if worker.name == "sources-reencrypt")
        await worker._work()  # type: ignore[attr-defined]
        assert await intake.rows("SELECT secrets::text AS sealed FROM source") != before
    async with running_hook_client(database_url, keys_file, secrets_keys=OTHER_KEY) as intake:
        assert (await intake.send("mautic", "s")).status_code == 200
    async with running_hook_client(database_url, keys_file, secrets_keys=SEALING_KEY) as intake:
        assert (await intake.send("mautic", "s")).status_code == 401, "a secret that no key opens proves nothing"
        assert (await intake.admin.get("/v1/sources/s")).status_code == 200


def test_the_vault_binds_a_secret_to_its_place() -> None:
    cipher = SecretCipher([b"k" * 32])
    encrypted = cipher.encrypt("geheim €", "source", "signing", "1")

    assert cipher.decrypt(encrypted, "source", "signing", "1") == "geheim €"
    assert encrypted != cipher.encrypt("geheim €", "source", "signing", "1")
    for place in (
        ("other", "signing", "1"),
        ("source", "token", "1"),
        ("source", "signing", "2"),
        ("sources", "igning", "1"),
    ):
        with pytest.raises(DecryptionFailed):
            cipher.decrypt(encrypted, *place)
    for broken in ("", "AAAA", encrypted[:-8] + "AAAAAAA=", "not base64 ü"):
        with pytest.raises(DecryptionFailed):
            cipher.decrypt(broken, "source", "signing", "1")
    with pytest.raises(DecryptionFailed):
        SecretCipher([b"l" * 32]).decrypt(encrypted, "source", "signing", "1")
    with pytest.raises(NoEncryptionKey):
        SecretCipher([]).encrypt("x")
    assert "k" * 32 not in repr(cipher)


def test_keys_are_read_in_either_alphabet_and_a_bad_one_is_not_quoted() -> None:
    standard = base64.b64encode(b"\xff" * 32).decode()
    assert parse_keys(f"{standard},{base64.urlsafe_b64encode(bytes(32)).decode().rstrip('=')}\n") == [
        b"\xff" * 32,
        bytes(32),
    ]
    assert parse_keys("") == []
    for bad in ("short", "x" * 44, ",".join([standard] * 11)):
        with pytest.raises(ValueError, match="key") as caught:
            parse_keys(bad)
        assert bad[:20] not in str(caught.value)


def test_keys_are_read_from_file_and_errors_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(SEALING_KEY + "\n")
    assert settings_of(
        "postgresql://x", tmp_path, secrets_keys=None, secrets_keys_file=path
    ).encryption_keys() == parse_keys(SEALING_KEY)
    with pytest.raises(ValidationError, match="exclude each other"):
        settings_of("postgresql://x", tmp_path, secrets_keys_file=path)
    with pytest.raises(ValidationError, match="cannot be read"):
        settings_of("postgresql://x", tmp_path, secrets_keys=None, secrets_keys_file=tmp_path / "none")
    with pytest.raises(ValidationError) as caught:
        settings_of("postgresql://x", tmp_path, secrets_keys=SecretStr("my-secret-key-that-is-too-short"))
    assert "my-secret" not in "".join(str(one["msg"]) for one in caught.value.errors(include_input=False))
    assert settings_of("postgresql://x", tmp_path, secrets_keys=None).encryption_keys() == []


async def test_token_is_not_sent_to_another_address_than_it_was_given_for(intake: HookClient) -> None:
    made = await intake.put("s", {"adapter": "hubspot", "secrets": {"signing": "a secret", "token": "pat-1"}})
    other: dict[str, Any] = {"adapter": "hubspot", "settings": {"base_url": "https://evil.example"}}

    async def put(body: dict[str, Any], after: Any) -> Any:
        return await intake.put("s", body, **{"If-Match": after.headers["etag"]})

    assert pointers(await put(other, made)) == {"/secrets/token"}
    assert pointers(await put({**other, "secrets": {"signing": "new"}}, made)) == {"/secrets/token"}
    same = await put({"adapter": "hubspot", "settings": {"base_url": "https://api.hubapi.com/"}}, made)
    assert len(same.json()["secrets"]["token"]) == 1, "the address that was meant before"
    late = {"value": "pat-2", "previous_until": "2099-01-01T00:00:00Z"}
    moved = await put({**other, "secrets": {"token": late}}, same)
    assert (moved.status_code, len(moved.json()["secrets"]["token"])) == (200, 1), "the one before goes nowhere else"
    assert len(moved.json()["secrets"]["signing"]) == 1
    assert pointers(await put({"adapter": "hubspot"}, moved)) == {"/secrets/token"}
    dropped = await put({"adapter": "hubspot", "secrets": {"token": None}}, moved)
    assert set(dropped.json()["secrets"]) == {"signing"}
    again = await put(other, dropped)
    assert again.status_code == 200, "there is no token to be sent"


@pytest.mark.parametrize("said", [{}, {"drop_previous": True}, {"previous_until": "2099-01-01T00:00:00Z"}])
async def test_word_about_the_old_token_is_no_new_one(intake: HookClient, said: dict[str, Any]) -> None:
    made = await intake.put("s", {"adapter": "meta-lead-ads", "secrets": {"token": "one"}})
    body = {
        "adapter": "meta-lead-ads",
        "settings": {"base_url": "https://graph.facebook.com/v21.0"},
        "secrets": {"token": said},
    }
    assert pointers(await intake.put("s", body, **{"If-Match": made.headers["etag"]})) == {"/secrets/token"}
