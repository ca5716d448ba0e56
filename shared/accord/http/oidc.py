"""OIDC access tokens: signature by the issuer's JWKS, issuer, audience and time, claims mapped to department and scopes.

Tokens are verified here and never issued; a token is never logged, and its subject leaves only as an opaque name.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import httpx
import jwt
import structlog
from msgspec import Struct

from accord.contracts.values import Department
from accord.http.problems import overloaded
from accord.settings import OidcSettings

log = structlog.get_logger(__name__)

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY_S = 30
_REFETCH_UNKNOWN_KEY_S = 10.0
_WAIT_UNKNOWN_KEY_S = 2.0
_WAITING_MAX = 50
"""Requests whose token has a key that is not known, which wait for the issuer's keys at once; one more is 503."""
_VERIFIED_MAX = 10_000
_JWKS_BYTES_MAX = 1024 * 1024
_HANDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_NAME_CHARS_MAX = 95


class InvalidToken(Exception):
    """The token is not to be trusted. The message says why in words of ours and quotes nothing of it."""


class Claims(Struct, frozen=True):
    """The claims of a token."""

    name: str
    department: Department | None
    scopes: frozenset[str]
    expires_at_s: float


class TokenVerifier:
    """Verifies tokens of one issuer. Keys are fetched with a time-out, kept, and fetched again when old or when one is unknown.

    They are fetched beside the requests: whose key is known waits for nobody. Keys of a kind that cannot be used here are left out.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._jwks_url = settings.jwks_url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._waiting = 0
        self._left_out: frozenset[str] = frozenset()
        self._verified: OrderedDict[bytes, tuple[Claims, float]] = OrderedDict()

    async def verify(self, token: bytes) -> Claims:
        """The claims of a valid token. Raises InvalidToken, or Problem 503 while no key of the issuer is known."""
        digest = sha256(token).digest()
        known = self._verified.get(digest)
        if known is not None and time.monotonic() < known[1] and known[0].expires_at_s + _LEEWAY_S > time.time():
            return known[0]
        key = await self._key(_key_id(token))
        claims = self._claims(token, key)
        # Verified again once the keys are fetched, so that a key that the issuer has dropped ends its tokens.
        self._verified[digest] = (claims, self._fresh_until())
        if len(self._verified) > _VERIFIED_MAX:
            self._verified.popitem(last=False)
        return claims

    def _claims(self, token: bytes, key: jwt.PyJWK) -> Claims:
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name] if key.algorithm_name in _ALGORITHMS else [],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("it has expired") from None
        except jwt.InvalidAudienceError:
            raise InvalidToken("it is for another audience") from None
        except jwt.InvalidIssuerError:
            raise InvalidToken("it is of another issuer") from None
        except jwt.PyJWTError:
            raise InvalidToken("its signature or its claims do not hold") from None
        return Claims(
            name=_name(str(payload["sub"])),
            department=_department(payload.get(self._settings.department_claim)),
            scopes=_scopes(payload.get(self._settings.scopes_claim)),
            expires_at_s=float(payload["exp"]),
        )

    async def _key(self, key_id: str | None) -> jwt.PyJWK:
        found = self._find(key_id)
        if found is not None and not self._is_old():
            return found
        refreshing = self._refresh()
        if found is not None:
            return found
        if refreshing is not None:
            await self._wait(refreshing)
            found = self._find(key_id)
        if found is not None:
            return found
        if self._fetched_at is None or (refreshing is not None and not refreshing.done()):
            raise overloaded(detail="The issuer of tokens cannot be asked for its keys at the moment. Try again.")
        raise InvalidToken("its key is not one of the issuer's")

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is not None:
            return self._keys.get(key_id)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _is_old(self) -> bool:
        return self._fetched_at is None or time.monotonic() - self._fetched_at > self._settings.jwks_max_age_s

    def _fresh_until(self) -> float:
        """When the keys are old; soon, if they are old already."""
        return max((self._fetched_at or 0.0) + self._settings.jwks_max_age_s, time.monotonic() + _REFETCH_UNKNOWN_KEY_S)

    def _refresh(self) -> asyncio.Task[None] | None:
        """Have the keys fetched, one time at once and not more often than every 10 s; the task that does it."""
        now = time.monotonic()
        if self._refreshing is None and (self._tried_at is None or now - self._tried_at >= _REFETCH_UNKNOWN_KEY_S):
            self._tried_at = now
            self._refreshing = asyncio.create_task(self._refetch(), name="oidc-keys")
        return self._refreshing

    async def _wait(self, refreshing: asyncio.Task[None]) -> None:
        """Wait for the keys that are being fetched; not for long if some are known. Raises Problem 503 if too many wait, at a cold start
        too: anybody can send a token, and a hung issuer would let such requests take the places of all others."""
        if self._waiting >= _WAITING_MAX:
            raise overloaded(detail="Too many requests wait for the keys of the issuer of tokens. Try again.")
        self._waiting += 1
        try:
            await asyncio.wait([refreshing], timeout=None if self._fetched_at is None else _WAIT_UNKNOWN_KEY_S)
        finally:
            self._waiting -= 1

    async def _refetch(self) -> None:
        """Fetch the keys; a failure, whatever the issuer answered, keeps those that are known."""
        try:
            async with asyncio.timeout(self._settings.timeout_s * 2):
                self._keys = await self._fetch()
            self._fetched_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - nothing that an issuer answers may end more than this
            log.error("jwks_not_fetched", error=type(error).__name__, keys_kept_count=len(self._keys))
        finally:
            self._refreshing = None

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        async with httpx.AsyncClient(timeout=self._settings.timeout_s, follow_redirects=False) as client:
            if self._jwks_url is None:
                discovery = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = await _get_json(client, discovery)
                if found.get("issuer") != self._settings.issuer:
                    raise ValueError("the discovery document is of another issuer")
                self._jwks_url = str(found["jwks_uri"])
            document = await _get_json(client, self._jwks_url)
        keys: dict[str, jwt.PyJWK] = {}
        left_out: set[str] = set()
        for index, item in enumerate(document["keys"]):
            if not isinstance(item, dict) or item.get("use", "sig") != "sig" or item.get("kty") == "oct":
                continue
            try:
                key = jwt.PyJWK(item)
            except Exception:  # noqa: BLE001 - cryptography has many words for what it does not know
                left_out.add(_describe_key(item))
                continue
            keys[str(item.get("kid", index))] = key
        self._report(frozenset(left_out))
        return keys

    def _report(self, left_out: frozenset[str]) -> None:
        """One line for each set of kinds that are left out, not one each time."""
        if left_out - self._left_out:
            log.warning("jwks_keys_skipped", kinds=sorted(left_out))
        self._left_out = left_out


def _describe_key(item: Mapping[str, object]) -> str:
    """What names the kind of a JWK, in short."""
    return "/".join(str(item.get(name, "-"))[:20] for name in ("kty", "crv", "alg"))


async def _get_json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    response = await client.get(url)
    response.raise_for_status()
    if len(response.content) > _JWKS_BYTES_MAX:
        raise ValueError("the answer is too large")
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("the answer is no JSON object")
    return found


def _key_id(token: bytes) -> str | None:
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise InvalidToken("it is not a JWT") from None
    if header.get("alg") not in _ALGORITHMS:
        raise InvalidToken("its algorithm is not accepted")
    key_id = header.get("kid")
    return key_id if isinstance(key_id, str) else None


def _name(subject: str) -> str:
    """The subject as an opaque name that is no API key's; one that could be an e-mail address becomes its hash."""
    if len(subject) <= _NAME_CHARS_MAX and _HANDLE.fullmatch(subject):
        return "oidc:" + subject
    return "oidc:" + sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _department(claim: object) -> Department | None:
    return claim if claim in ("marketing", "sales") else None


def _scopes(claim: object) -> frozenset[str]:
    """Scopes as RFC 8693 has them (text, separated by spaces) or as a list."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    if isinstance(claim, list):
        return frozenset(item for item in claim if isinstance(item, str))
    return frozenset()
