"""Who calls: keys by their hashes, scopes, the keys file that changes, and tokens of an issuer."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import APIRouter
from shared_kit import KEYS, Kit, auth, service_kit, until, write_keys

from accord.http import oidc
from accord.http.auth import Caller, KeyStore, require
from accord.http.oidc import TokenVerifier
from accord.http.problems import Problem
from accord.settings import OidcSettings
from accord.telemetry import configure_logging


def who() -> APIRouter:
    router = APIRouter()

    @router.get("/who")
    async def who_(caller: Annotated[Caller, require()]) -> dict[str, Any]:
        return {"name": caller.name, "department": caller.department, "scopes": sorted(caller.scopes)}

    @router.get("/admin")
    async def admin(caller: Annotated[Caller, require("admin")]) -> str:
        return caller.name

    return router


@pytest.fixture
async def shop(kit_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    async with service_kit(kit_database, tmp_path, who()) as built:
        yield built


UNKNOWN: list[str | None] = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Basic a2V5",
    "Bearer nobody-knows-it",
    "Bearer a.b.c",
    "Bearer " + "x" * 9_000,
]


async def test_without_a_known_key_it_is_401_and_says_how(shop: Kit) -> None:
    for header in UNKNOWN:
        response = await shop.client.get("/who", headers={} if header is None else {"Authorization": header})
        assert response.status_code == 401, header
        assert response.headers["www-authenticate"].startswith("Bearer"), header
        assert response.json()["type"] == "/problems/unauthenticated", header


async def test_a_key_is_known_by_its_hash(shop: Kit) -> None:
    response = await shop.client.get("/who", headers=auth("sales"))
    assert response.json() == {
        "name": "sales",
        "department": "sales",
        "scopes": ["agreements:sign", "agreements:write"],
    }


async def test_a_missing_scope_is_403_and_named(shop: Kit) -> None:
    response = await shop.client.get("/admin", headers=auth("sales"))
    assert response.status_code == 403
    assert response.json()["missing_scope"] == "admin"
    assert 'scope="admin"' in response.headers["www-authenticate"]


async def test_health_metrics_and_documentation_need_no_key(shop: Kit) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert (await shop.client.get(path)).status_code == 200


def touched(path: Path) -> None:
    """Make sure that the file's time is another."""
    later = time.time_ns() + 5_000_000_000
    os.utime(path, ns=(later, later))


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.http.auth._CHECK_EVERY_S", 0.0)


@pytest.mark.usefixtures("looks_at_once")
def test_a_changed_keys_file_is_read_again(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.yaml")
    keys = KeyStore(path)
    assert keys.find(b"key-of-sales") is not None
    write_keys(path, {"other": ("new-key", None, ["admin"])})
    touched(path)
    assert keys.find(b"key-of-sales") is None
    assert keys.find(b"new-key") == Caller("other", None, frozenset({"admin"}))


@pytest.mark.usefixtures("looks_at_once")
@pytest.mark.parametrize(
    "broken",
    [
        "keys: [",
        "keys: {a: b}",
        "keys: [{name: a@b.example, sha256: 00}]",
        "keys: [{name: x, sha256: '" + "0" * 64 + "', scopes: [unknown]}]",
        "keys: [{name: x, key: in-clear}]",
        "- 1",
        "\0",
    ],
)
def test_a_broken_keys_file_keeps_the_old_keys_and_is_reported_once(
    tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    path = write_keys(tmp_path / "keys.yaml")
    keys = KeyStore(path)
    path.write_text(broken)
    touched(path)
    for _ in range(3):
        assert keys.find(b"key-of-sales") is not None
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    errors = [line for line in lines if line["level"] == "error"]
    assert [line["event"] for line in errors] == ["api_keys_not_loaded"]
    assert errors[0]["keys_kept_count"] == len(KEYS)
    assert "in-clear" not in json.dumps(errors)
    assert "b.example" not in json.dumps(errors)


@pytest.mark.usefixtures("looks_at_once")
def test_a_keys_file_that_goes_away_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    path = write_keys(tmp_path / "keys.yaml")
    keys = KeyStore(path)
    path.unlink()
    for _ in range(3):
        assert keys.find(b"key-of-sales") is not None
    write_keys(path, {"other": ("new-key", None, [])})
    assert keys.find(b"new-key") is not None
    assert capsys.readouterr().out.count("api_keys_not_loaded") == 1


def test_the_file_is_not_looked_at_for_every_request(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.yaml")
    keys = KeyStore(path)
    path.unlink()
    assert keys.find(b"key-of-sales") is not None


# -- tokens ------------------------------------------------------------------------------------------------------------


class Issuer:
    """An OpenID Connect issuer on this machine, whose keys and manners a test can change."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": rsa.generate_private_key(65537, 2048)}
        self.fetched = 0
        self.down = False
        self.odd: list[Any] = []
        self.answers = Event()
        self.answers.set()
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.answers.wait(60)
                if issuer.down:
                    self.send_error(500)
                    return
                if self.path.endswith("openid-configuration"):
                    body: dict[str, Any] = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
                else:
                    issuer.fetched += 1
                    body = issuer.jwks()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def jwks(self) -> dict[str, Any]:
        keys = []
        for kid, key in self.keys.items():
            algorithm = (
                jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
            )
            keys.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
        return {"keys": [*self.odd, *keys, {"kty": "oct", "kid": "odd", "k": "c2VjcmV0"}]}

    def token(self, kid: str = "one", *, key: Any = None, algorithm: str | None = None, **claims: Any) -> str:
        now = int(time.time())
        payload = {
            "iss": self.url,
            "aud": "accord",
            "sub": "ada",
            "iat": now,
            "exp": now + 300,
            "scope": "leads:read agreements:sign unknown:scope",
            "department": "sales",
            **claims,
        }
        signing = key if key is not None else self.keys[kid]
        chosen = algorithm or ("RS256" if isinstance(signing, rsa.RSAPrivateKey) else "ES256")
        return jwt.encode({k: v for k, v in payload.items() if v is not None}, signing, chosen, headers={"kid": kid})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    built = Issuer()
    yield built
    built.answers.set()
    built.server.shutdown()
    built.server.server_close()


@pytest.fixture
async def club(kit_database: str, tmp_path: Path, issuer: Issuer) -> AsyncIterator[Kit]:
    async with service_kit(kit_database, tmp_path, who(), oidc_issuer=issuer.url, oidc_audience="accord") as built:
        yield built


async def ask(club: Kit, token: str) -> Any:
    return await club.client.get("/who", headers={"Authorization": f"Bearer {token}"})


async def test_a_token_of_the_issuer_says_department_and_scopes(club: Kit, issuer: Issuer) -> None:
    response = await ask(club, issuer.token())
    assert response.json() == {
        "name": "oidc:ada",
        "department": "sales",
        "scopes": ["agreements:sign", "leads:read"],
    }
    assert (await club.client.get("/who", headers=auth("sales"))).json()["name"] == "sales"


async def test_scopes_may_be_a_list_and_a_subject_that_could_be_an_address_becomes_its_hash(
    club: Kit, issuer: Issuer
) -> None:
    response = await ask(club, issuer.token(sub="ada@initech.example", scope=["admin"], department="board"))
    assert response.json()["scopes"] == ["admin"]
    assert response.json()["department"] is None
    assert "initech" not in response.text


async def test_a_token_that_does_not_hold_is_401(club: Kit, issuer: Issuer) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    public = issuer.keys["one"].public_key()
    for token in (
        issuer.token(exp=int(time.time()) - 60),
        issuer.token(exp=None),
        issuer.token(sub=None),
        issuer.token(nbf=int(time.time()) + 600),
        issuer.token(aud="other"),
        issuer.token(aud=None),
        issuer.token(iss="https://other.example"),
        issuer.token(key=stranger),
        issuer.token(kid="two", key=stranger),
        issuer.token(key="x" * 40, algorithm="HS256"),
        issuer.token(kid="odd", key="secret" * 8, algorithm="HS256"),
        jwt.encode({"iss": issuer.url, "aud": "accord", "sub": "ada", "exp": 2**33}, None, "none"),
        issuer.token()[:-8] + "AAAAAAAA",
        "a.b.c",
        "..",
    ):
        response = await ask(club, token)
        assert response.status_code == 401, token
        assert token not in response.text
    assert public is not None


async def test_keys_are_fetched_once_for_many_requests_at_once(club: Kit, issuer: Issuer) -> None:
    tokens = [issuer.token(sub=f"person-{number}") for number in range(20)]
    responses = await asyncio.gather(*(ask(club, token) for token in tokens))
    assert {response.status_code for response in responses} == {200}
    assert issuer.fetched == 1


async def test_a_new_key_of_the_issuer_is_found_and_unknown_ones_do_not_flood_it(
    club: Kit, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await ask(club, issuer.token())).status_code == 200
    issuer.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    for _ in range(5):
        assert (await ask(club, issuer.token("two"))).status_code == 401
    assert issuer.fetched == 1
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    assert (await ask(club, issuer.token("two"))).status_code == 200
    assert issuer.fetched == 2


async def test_while_the_issuer_is_down_known_keys_hold_and_the_unknown_is_503(
    club: Kit, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.down = True
    assert (await ask(club, issuer.token())).status_code == 503
    issuer.down = False
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    assert (await ask(club, issuer.token())).status_code == 200
    issuer.down = True
    assert (await ask(club, issuer.token(sub="grace"))).status_code == 200


ODD_KEYS: list[Any] = [
    {"kty": "OKP", "crv": "X25519", "kid": "x", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"},
    {"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "too-short"},
    {"kty": "EC", "crv": "P-256K", "kid": "x", "x": "AAAA", "y": "AAAA"},
    {"kty": "EC", "crv": "P-256", "kid": "x", "x": "AAAA", "y": "AAAA"},
    {"kty": "AKP", "alg": "ML-DSA-44", "kid": "x", "pub": "AAAA"},
    {"kty": "RSA", "kid": "x", "n": 5, "e": []},
    {"kty": ["RSA"], "kid": {"x": 1}},
    {"kid": "x"},
    {},
    "RSA",
    None,
    5,
]


@pytest.mark.parametrize("odd", ODD_KEYS, ids=lambda odd: json.dumps(odd)[:40])
async def test_a_key_of_a_kind_that_is_not_known_spoils_no_other(club: Kit, issuer: Issuer, odd: Any) -> None:
    issuer.odd = [odd]
    assert (await ask(club, issuer.token())).status_code == 200


async def test_keys_that_are_left_out_are_logged_once(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    tokens = TokenVerifier(OidcSettings(issuer=issuer.url, audience="accord"))
    issuer.odd = ODD_KEYS
    for number in range(5):
        with pytest.raises(oidc.InvalidToken):
            await tokens.verify(issuer.token(f"unknown-{number}", key=issuer.keys["one"]).encode())
    assert issuer.fetched == 5
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [line for line in lines if line["event"] == "jwks_keys_skipped"]
    assert len(told) == 1
    assert "OKP/X25519/-" in told[0]["kinds"]


@pytest.mark.parametrize("document", ["{}", '{"keys": 5}', '{"keys": {"a": 1}}', "[]", "x", '{"keys": null}'])
async def test_whatever_an_issuer_answers_known_keys_hold(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    tokens = TokenVerifier(OidcSettings(issuer=issuer.url, audience="accord", jwks_max_age_s=0.0))
    assert (await tokens.verify(issuer.token().encode())).name == "oidc:ada"
    monkeypatch.setattr(issuer, "jwks", lambda: json.loads(document) if document != "x" else "x")
    for name in ("grace", "joan", "mary"):
        assert (await tokens.verify(issuer.token(sub=name).encode())).name == f"oidc:{name}"


async def test_a_hung_issuer_holds_up_nobody_whose_key_is_known(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    monkeypatch.setattr(oidc, "_WAIT_UNKNOWN_KEY_S", 0.2)
    tokens = TokenVerifier(OidcSettings(issuer=issuer.url, audience="accord", jwks_max_age_s=0.0, timeout_s=600))
    await tokens.verify(issuer.token().encode())
    issuer.answers.clear()
    async with asyncio.timeout(60):
        for number in range(20):
            claims = await tokens.verify(issuer.token(sub=f"person-{number}").encode())
            assert claims.name == f"oidc:person-{number}"
        # Who has a key that is not known is sent away after a moment.
        with pytest.raises(Problem) as sent_away:
            await tokens.verify(issuer.token("new", key=issuer.keys["one"]).encode())
        assert sent_away.value.status == 503
    issuer.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    issuer.answers.set()
    assert (await tokens.verify(issuer.token("two").encode())).name == "oidc:ada"


@pytest.mark.parametrize("is_cold", [True, False], ids=["at a cold start", "while keys are known"])
async def test_no_more_than_fifty_wait_for_a_hung_issuer(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, is_cold: bool
) -> None:
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    monkeypatch.setattr(oidc, "_WAIT_UNKNOWN_KEY_S", 600)
    tokens = TokenVerifier(OidcSettings(issuer=issuer.url, audience="accord", timeout_s=600))
    if not is_cold:
        await tokens.verify(issuer.token().encode())
    issuer.answers.clear()
    issuer.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    asking = [
        asyncio.create_task(tokens.verify(issuer.token("two", sub=f"person-{number}").encode()))
        for number in range(200)
    ]

    async def are_refused() -> bool:
        return sum(one.done() for one in asking) == 150

    await until(are_refused)
    assert tokens._waiting == 50
    for refused in filter(asyncio.Task.done, asking):
        error = refused.exception()
        assert isinstance(error, Problem)
        assert error.status == 503
    waiting = [one for one in asking if not one.done()]
    issuer.answers.set()
    assert len({claims.name for claims in await asyncio.gather(*waiting)}) == 50


async def test_a_key_that_the_issuer_drops_ends_its_tokens(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "_REFETCH_UNKNOWN_KEY_S", 0.0)
    tokens = TokenVerifier(OidcSettings(issuer=issuer.url, audience="accord", jwks_max_age_s=0.0))
    token = issuer.token().encode()
    await tokens.verify(token)
    issuer.keys["two"] = issuer.keys.pop("one")

    async def is_refused() -> bool:
        try:
            await tokens.verify(token)
        except oidc.InvalidToken:
            return True
        return False

    await until(is_refused)
