"""Authentication: an API key from a file of SHA-256 hashes, or an OIDC access token. It keeps no key in clear and logs none.

A key is looked up by its digest in a dictionary; the file is looked at once a second at most and read only when it has changed.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import structlog
import yaml
from fastapi import Depends, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import HTTPConnection, Request

from accord.contracts.values import Department, Handle
from accord.http.limits import TokenBuckets
from accord.http.oidc import InvalidToken, TokenVerifier
from accord.http.problems import Problem
from accord.metric_names import HTTP_REFUSED, KEYS_RELOAD_FAILURES

log = structlog.get_logger(__name__)

Scope = Literal[
    "leads:read",
    "leads:write",
    "personal:read",
    "decisions:write",
    "agreements:write",
    "agreements:sign",
    "sla:read",
    "sla:write",
    "metrics:read",
    "admin",
]
SCOPES: frozenset[str] = frozenset(get_args(Scope))

_CHECK_EVERY_S = 1.0
_FILE_BYTES_MAX = 4 * 1024 * 1024
_BEARER_CHARS_MAX = 8_192
_NO_REQUIREMENT = object()


class Caller(Struct, frozen=True):
    """Who makes this request. `name` is opaque (never an e-mail address) and may stand in events."""

    name: str
    department: Department | None
    scopes: frozenset[str]


class KeyEntry(BaseModel):
    """One key of the keys file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Handle
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    department: Department | None = None
    scopes: list[Scope] = []


class KeysFile(BaseModel):
    """The keys file: `keys: [{name, sha256, department, scopes}]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[KeyEntry] = []

    @model_validator(mode="after")
    def _check_distinct(self) -> KeysFile:
        if len({key.name for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have one name")
        if len({key.sha256 for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have one hash")
        return self


class KeyStore:
    """The keys of a file, read again when the file changes. A new file that cannot be read leaves the old keys in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._callers: dict[bytes, tuple[bytes, Caller]] = {}
        self._file_state: tuple[int, int, int] | None = None
        self._check_at = 0.0
        self._reload_if_changed()

    def find(self, key: bytes) -> Caller | None:
        """The caller with this key."""
        if time.monotonic() >= self._check_at:
            self._reload_if_changed()
        digest = sha256(key).digest()
        found = self._callers.get(digest)
        # The dictionary is keyed by digest, so its timing reveals nothing of a key; the comparison that decides is constant in time.
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]

    def has(self, name: str) -> bool:
        """Whether there is a key of this name."""
        if time.monotonic() >= self._check_at:
            self._reload_if_changed()
        return any(caller.name == name for _, caller in self._callers.values())

    def _reload_if_changed(self) -> None:
        self._check_at = time.monotonic() + _CHECK_EVERY_S
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if state == self._file_state:
                return
            self._file_state = state
            self._callers = _read_keys(self._path)
        except FileNotFoundError:
            self._report_failure("missing", "the file is not there")
        except (OSError, ValueError, yaml.YAMLError) as error:
            self._report_failure("unreadable", _describe_error(error))
        else:
            log.info("api_keys_loaded", keys_count=len(self._callers))

    def _report_failure(self, state: str, why: str) -> None:
        if state == "missing":
            if self._file_state == (0, 0, 0):
                return
            self._file_state = (0, 0, 0)
        KEYS_RELOAD_FAILURES.inc()
        log.error("api_keys_not_loaded", why=why, keys_kept_count=len(self._callers))


def _read_keys(path: Path) -> dict[bytes, tuple[bytes, Caller]]:
    with path.open("rb") as file:
        text = file.read(_FILE_BYTES_MAX + 1)
    if len(text) > _FILE_BYTES_MAX:
        raise ValueError("the file is too large")
    parsed = KeysFile.model_validate(yaml.safe_load(text) or {})
    digests = ((bytes.fromhex(key.sha256), key) for key in parsed.keys)
    return {digest: (digest, Caller(key.name, key.department, frozenset(key.scopes))) for digest, key in digests}


def _describe_error(error: Exception) -> str:
    """Where the file is wrong, without what stands there: it could be a key that somebody pasted in clear."""
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join("/".join(map(str, item["loc"])) + ": " + item["type"] for item in found[:5])
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"not YAML, line {error.problem_mark.line + 1}"
    return type(error).__name__ if not isinstance(error, OSError) else os.strerror(error.errno or 0)


class Authenticator:
    """Authenticates requests: by keys, then tokens if an issuer is set, and the rate of each key."""

    def __init__(
        self, *, keys: KeyStore | None = None, tokens: TokenVerifier | None = None, buckets: TokenBuckets | None = None
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._buckets = buckets

    async def authenticate(self, connection: HTTPConnection) -> Caller:
        """The caller of this request. Raises Problem 401, 429, or 503 if the issuer of tokens cannot be asked."""
        credentials = _read_bearer(connection)
        found = self._keys.find(credentials) if self._keys is not None else None
        if found is None and self._tokens is not None and credentials.count(b".") == 2:
            found = await self._find_by_token(self._tokens, credentials)
        if found is None:
            HTTP_REFUSED.labels("auth").inc()
            raise _unauthenticated("The key or token is not known.", 'error="invalid_token"')
        if self._buckets is not None:
            self._charge_rate(connection, found, self._buckets)
        return found

    def has_key(self, name: str) -> bool:
        """Whether there is an API key of this name now."""
        return self._keys is not None and self._keys.has(name)

    async def _find_by_token(self, tokens: TokenVerifier, token: bytes) -> Caller:
        try:
            claims = await tokens.verify(token)
        except InvalidToken as error:
            HTTP_REFUSED.labels("auth").inc()
            raise _unauthenticated(f"The token is not valid: {error}.", 'error="invalid_token"') from None
        return Caller(claims.name, claims.department, claims.scopes & SCOPES)

    @staticmethod
    def _charge_rate(connection: HTTPConnection, caller: Caller, buckets: TokenBuckets) -> None:
        taken = buckets.take(caller.name)
        connection.scope["accord.rate"] = taken.headers
        if not taken.allowed:
            HTTP_REFUSED.labels("rate").inc()
            raise Problem(
                429,
                "too-many-requests",
                "Too many requests",
                "This key has used up its rate. Try again after the time in Retry-After.",
                headers={"Retry-After": str(taken.retry_after_s)},
            )


def make_authenticator(
    keys_file: Path | None, tokens: TokenVerifier | None, rate_per_s: float | None, burst: int | None
) -> Authenticator:
    """The authenticator that these settings describe. Without a keys file and an issuer it knows nobody."""
    return Authenticator(
        keys=KeyStore(keys_file) if keys_file is not None else None,
        tokens=tokens,
        buckets=TokenBuckets(rate_per_s, burst) if rate_per_s is not None else None,
    )


def _read_bearer(connection: HTTPConnection) -> bytes:
    for name, value in connection.scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            credentials: bytes = rest.strip()
            if scheme.lower() != b"bearer" or not credentials or len(credentials) > _BEARER_CHARS_MAX:
                break
            return credentials
    HTTP_REFUSED.labels("auth").inc()
    raise _unauthenticated("Send a key: 'Authorization: Bearer <key>'.")


def _unauthenticated(detail: str, parameters: str = "") -> Problem:
    challenge = 'Bearer realm="accord"' + (", " + parameters if parameters else "")
    return Problem(401, "unauthenticated", "Authentication failed", detail, headers={"WWW-Authenticate": challenge})


async def authorize(request: Request, scope: Scope | None = None) -> Caller:
    """The caller, who must have `scope` (None: any known caller). For plain routes. Raises Problem 401, 403 or 429, and 422 for a query
    that does not fit the operation."""
    known = request.scope.get("accord.caller")
    if isinstance(known, Caller):
        caller = known
    else:
        caller = await request.app.state.auth.authenticate(request)
        request.scope["accord.caller"] = caller
    if scope is not None and scope not in caller.scopes:
        raise forbidden(scope)
    request.app.state.query.check(request)
    return caller


def forbidden(scope: str) -> Problem:
    """403 naming the scope that is missing."""
    return Problem(
        403,
        "forbidden",
        "Missing scope",
        f"The key lacks the scope {scope}.",
        headers={"WWW-Authenticate": f'Bearer realm="accord", error="insufficient_scope", scope="{scope}"'},
        missing_scope=scope,
    )


BEARER = HTTPBearer(
    scheme_name="bearer",
    description="An API key of Accord, or an access token of the configured issuer.",
    auto_error=False,
)


def require(scope: Scope | None = None) -> Any:
    """FastAPI dependency: the Caller, who must have `scope`; None: any known caller.

    `caller: Caller = require("leads:write")`, or `dependencies=[require("leads:read")]`.
    """

    async def caller_with_scope(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> Caller:
        return await authorize(request, scope)

    caller_with_scope.accord_scope = scope  # type: ignore[attr-defined]  # read by required_scopes
    return Depends(caller_with_scope)


def required_scopes(dependant: Dependant) -> Iterator[Scope | None]:
    """What a FastAPI route asks for by `require()`: each scope, None for any known caller."""
    scope: object = getattr(dependant.call, "accord_scope", _NO_REQUIREMENT)
    if scope is not _NO_REQUIREMENT:
        yield cast("Scope | None", scope)
    for part in dependant.dependencies:
        yield from required_scopes(part)


def key_entry(name: str, key: str, department: Department | None, scopes: list[Scope]) -> Mapping[str, object]:
    """What stands in the keys file for a key in clear; the key itself cannot be found from it."""
    entry = KeyEntry(name=name, sha256=sha256(key.encode()).hexdigest(), department=department, scopes=scopes)
    return entry.model_dump(mode="json")
