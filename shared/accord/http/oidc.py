"""OIDC access tokens: signature by the issuer's JWKS, issuer, audience and time, claims mapped to department and scopes.

Tokens are verified here and never issued; a token is never logged, and its subject leaves only as an opaque name.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx
import jwt
import structlog

from accord.contracts.values import Department
from accord.http.problems import overloaded
from accord.settings import OidcSettings

log = structlog.get_logger(__name__)

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY_S = 30
_REFETCH_UNKNOWN_KEY_S = 10.0
_VERIFIED_MAX = 10_000
_JWKS_BYTES_MAX = 1024 * 1024
_HANDLE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")
_NAME_CHARS_MAX = 95


class InvalidToken(Exception):
    """The token is not to be trusted. The message says why in words of ours and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of its bearer."""

    name: str
    department: Department | None
    scopes: frozenset[str]
    expires_at_s: float


class TokenVerifier:
    """Verifies tokens of one issuer. Keys are fetched with a time-out, kept, and fetched anew when old or when one is unknown."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._jwks_url = settings.jwks_url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[bytes, tuple[Claims, float]] = OrderedDict()

    async def verify(self, token: bytes) -> Claims:
        """The claims of a valid token. Raises InvalidToken, or Problem 503 while no key of the issuer is known."""
        digest = sha256(token).digest()
        known = self._verified.get(digest)
        if known is not None and time.monotonic() < known[1] and known[0].expires_at_s + _LEEWAY_S > time.time():
            return known[0]
        key = await self._key(_key_id(token))
        claims = self._claims(token, key)
        # Verified anew as often as the keys are fetched, so that a key that the issuer has dropped ends its tokens.
        self._verified[digest] = (claims, time.monotonic() + self._settings.jwks_max_age_s)
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
        if found is None or self._is_old():
            await self._refresh(key_id)
            found = self._find(key_id)
        if found is not None:
            return found
        if self._fetched_at is None:
            raise overloaded(detail="The issuer of tokens cannot be asked for its keys at the moment. Try again.")
        raise InvalidToken("its key is not one of the issuer's")

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is not None:
            return self._keys.get(key_id)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _is_old(self) -> bool:
        return self._fetched_at is None or time.monotonic() - self._fetched_at > self._settings.jwks_max_age_s

    async def _refresh(self, key_id: str | None) -> None:
        """Fetch the keys, one request at a time and not more often than every 10 s; a failure keeps the keys that are known."""
        async with self._fetching:
            if self._find(key_id) is not None and not self._is_old():
                return
            now = time.monotonic()
            if self._tried_at is not None and now - self._tried_at < _REFETCH_UNKNOWN_KEY_S:
                return
            self._tried_at = now
            try:
                async with asyncio.timeout(self._settings.timeout_s * 2):
                    self._keys = await self._fetch()
            except (httpx.HTTPError, TimeoutError, ValueError, KeyError, jwt.PyJWTError) as error:
                log.error("jwks_not_fetched", error=type(error).__name__, keys_kept_count=len(self._keys))
                return
            self._fetched_at = time.monotonic()

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
        for index, item in enumerate(document["keys"]):
            if (
                not isinstance(item, dict)
                or item.get("use", "sig") != "sig"
                or item.get("kty") not in ("RSA", "EC", "OKP")
            ):
                continue
            keys[str(item.get("kid", index))] = jwt.PyJWK(item)
        return keys


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
    if len(subject) <= _NAME_CHARS_MAX and _HANDLE.match(subject):
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
