"""Configures sources. Secrets go in and never come out: they are encrypted before they reach a statement, and decrypted in memory only."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog
from msgspec import structs
from pydantic import JsonValue, ValidationError

from accord.db import Database, UnitOfWork, is_transient
from accord.http.conditional import precondition_failed
from accord.http.problems import Problem, not_found, pointer, validation_error, validation_error_at
from accord.ids import new_id
from accord.secrets import DecryptionFailed, SecretCipher
from accord.terms.findings import Finding
from accord.workers import Periodic
from intake.sources import queries as sources
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import TOKEN, AnyAdapter
from intake.sources.domain.mapping import (
    find_undeclared,
    find_undeclared_defaults,
    validate_defaults,
    validate_mapping,
)
from intake.sources.domain.source import SECRETS_VALID_MAX, EncryptedSecret, Source

log = structlog.get_logger(__name__)

SOURCES_MAX = 1_000
"""Configured sources; each is a label of metrics."""
SECRET_CHARS_MAX = 2_000
_PLAIN_SECRET_CHARS_MIN = 16
"""A secret that is all that verifies a request, not the key of a signature, must not be guessable."""
_PLAIN_SECRETS = frozenset({"url", "header", "bearer", "write_key"})
_URL_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_REENCRYPT_EVERY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class NewSecret:
    """What a PUT says of the secrets of one kind. `value` None: none is added. `keep_until`: how long the one before stays valid; None:
    until it is dropped or a third comes. `drop_previous`: only the newest stays."""

    value: str | None = field(default=None, repr=False)
    keep_until: datetime | None = None
    drop_previous: bool = False


@dataclass(frozen=True, slots=True)
class SourceContent:
    """What a PUT says of a source. Kinds that `secrets` does not name stay as they are; None: those of the kind are dropped."""

    adapter: str | None
    settings: Mapping[str, JsonValue]
    mapping: Mapping[str, JsonValue]
    defaults: Mapping[str, JsonValue]
    secrets: Mapping[str, NewSecret | None] = field(default_factory=dict, repr=False)


GetDeclared = Callable[[], Awaitable[Collection[str] | None]]
"""The attributes that the data policy in force declares; None without one."""


class Sources:
    """The use case of those who configure."""

    def __init__(self, database: Database, cipher: SecretCipher, get_declared: GetDeclared) -> None:
        self._database = database
        self._cipher = cipher
        self._get_declared = get_declared
        self.changes = 0
        """Counts what this process has changed, so that what it keeps at hand is looked up anew."""

    async def get(self, name: str) -> Source:
        """Raises Problem 404."""
        async with self._database.read_transaction() as conn:
            found = await sources.read(conn, name)
        if found is None:
            raise not_found("source")
        return found

    async def page(self, after: str, rows: int) -> list[Source]:
        """Sources by name, those behind `after`."""
        async with self._database.read_transaction() as conn:
            return await sources.page(conn, after, rows)

    async def put(self, name: str, content: SourceContent, match: str | None) -> tuple[Source, bool]:
        """Make the source, or put this in its place; whether it is new. `match`: the ETag that the change is based on, `*` for "only if
        there is none", None without either.

        Raises Problem 409 without a key to encrypt a secret with, 412 and 428 by the ETag, 422 with pointers for what does not fit or is
        mapped to an attribute that the policy in force does not declare.
        """
        _check(content, await self._get_declared())
        async with self._database.write_transaction() as unit_of_work:
            before = await sources.lock(unit_of_work.conn, name)
            _check_match(before, match)
            if before is None:
                await _check_room(unit_of_work)
            secrets = self._secrets(name, content, before, unit_of_work.now)
            source = Source(
                name=name,
                adapter=content.adapter,
                settings=content.settings,
                mapping_document=content.mapping,
                defaults=content.defaults,
                secrets=secrets,
                version=1 if before is None else before.version + 1,
                created_at=unit_of_work.now if before is None else before.created_at,
                updated_at=unit_of_work.now,
            )
            await sources.save(unit_of_work.conn, source, unit_of_work.now)
        self.changes += 1
        return source, before is None

    async def delete(self, name: str, match: str | None) -> None:
        """Forget the source and its secrets. Its leads stay. Raises Problem 404, 412."""
        async with self._database.write_transaction() as unit_of_work:
            before = await sources.lock(unit_of_work.conn, name)
            if before is None:
                raise not_found("source")
            if match is not None and match != compute_etag(before):
                raise precondition_failed(compute_etag(before))
            await sources.delete(unit_of_work.conn, name)
        self.changes += 1

    async def reencrypt(self) -> bool:
        """Encrypt with the first key what was encrypted with another, so that the others can be taken away. Whether there is more to do."""
        if not self._cipher.can_encrypt:
            return False
        after = ""
        while found := await self.page(after, 100):
            for source in found:
                if any(not self._cipher.is_current(one.encrypted) for one in source.secrets):
                    try:
                        await self._reencrypt(source.name)
                    except Exception as error:
                        if is_transient(error):
                            raise
                        log.exception(
                            "source_not_reencrypted", source=source.name
                        )  # the others are, and it is tried again
            after = found[-1].name
        return False

    async def _reencrypt(self, name: str) -> None:
        async with self._database.write_transaction() as unit_of_work:
            source = await sources.lock(unit_of_work.conn, name)
            if source is None:
                return
            reencrypted: list[EncryptedSecret] = []
            for one in source.secrets:
                if not self._cipher.is_current(one.encrypted):
                    try:
                        clear = self._cipher.decrypt(one.encrypted, name, one.kind, one.secret_id)
                    except DecryptionFailed:
                        log.warning("secret_not_decrypted", source=name, kind=one.kind)
                        reencrypted.append(one)
                        continue
                    reencrypted.append(
                        structs.replace(one, encrypted=self._cipher.encrypt(clear, name, one.kind, one.secret_id))
                    )
                else:
                    reencrypted.append(one)
            await sources.save(unit_of_work.conn, replace(source, secrets=tuple(reencrypted)), unit_of_work.now)

    def _secrets(
        self, name: str, content: SourceContent, before: Source | None, now: datetime
    ) -> tuple[EncryptedSecret, ...]:
        kept = _valid_secrets(before, content, now)
        for kind, said in content.secrets.items():
            if said is None:
                kept.pop(kind, None)
                continue
            old = kept.get(kind, [])
            if said.value is not None:
                kept[kind] = self._with_new_secret(name, kind, said, old, now)
            elif said.drop_previous:
                kept[kind] = old[:1]
            elif said.keep_until is not None:
                kept[kind] = [*old[:1], *(structs.replace(one, until=said.keep_until) for one in old[1:])]
        return tuple(one for kind in sorted(kept) for one in kept[kind])

    def _with_new_secret(
        self, name: str, kind: str, said: NewSecret, old: Sequence[EncryptedSecret], now: datetime
    ) -> list[EncryptedSecret]:
        """The new secret first, then what stays valid of the old; the same secret put again is no new one."""
        if not self._cipher.can_encrypt:
            raise Problem(
                409,
                "no-encryption-key",
                "No encryption key",
                "Set ACCORD_SECRETS_KEYS (or ACCORD_SECRETS_KEYS_FILE) of intake to a key of 32 bytes in base64, then try again.",
            )
        value = said.value or ""
        known = next((one for one in old if self._equals(name, one, value)), None)
        secret_id = str(new_id())
        first = known or EncryptedSecret(kind, secret_id, self._cipher.encrypt(value, name, kind, secret_id), now)
        rest = [one for one in old if one is not known]
        if said.drop_previous:
            rest = []
        elif said.keep_until is not None:
            rest = [structs.replace(one, until=said.keep_until) for one in rest]
        return [structs.replace(first, until=None), *rest][:SECRETS_VALID_MAX]

    def _equals(self, name: str, secret: EncryptedSecret, value: str) -> bool:
        try:
            clear = self._cipher.decrypt(secret.encrypted, name, secret.kind, secret.secret_id)
        except DecryptionFailed:
            return False
        return hmac.compare_digest(clear.encode(), value.encode())


def compute_etag(source: Source) -> str:
    """Names one state of the source, also across its deletion."""
    made = source.created_at.timestamp() if source.created_at else 0.0
    return f'"{source.version}-{int(made * 1000):x}"'


def _check_match(before: Source | None, match: str | None) -> None:
    if before is None:
        if match not in (None, "*"):
            raise precondition_failed()
        return
    if match is None:
        raise Problem(
            428,
            "precondition-required",
            "Source already exists",
            "Send its ETag as If-Match to change it, so that nobody's change is lost.",
            headers={"ETag": compute_etag(before)},
        )
    if match != compute_etag(before):
        raise precondition_failed(compute_etag(before))


async def _check_room(unit_of_work: UnitOfWork) -> None:
    if await sources.count(unit_of_work.conn) >= SOURCES_MAX:
        raise Problem(409, "too-many-sources", "Too many sources", f"There may be {SOURCES_MAX} of them.")


def _valid_secrets(before: Source | None, content: SourceContent, now: datetime) -> dict[str, list[EncryptedSecret]]:
    """The secrets that the source has and may keep, by kind. Raises Problem 422 for a token that must be given anew."""
    if before is None or before.adapter != content.adapter:
        return {}
    kept: dict[str, list[EncryptedSecret]] = {}
    for one in before.secrets:
        if one.until is None or one.until > now:
            kept.setdefault(one.kind, []).append(one)
    if _base_url(before.adapter, before.settings) != _base_url(content.adapter, content.settings):
        # A token was given for one address; whoever can change the address must not get it sent there.
        said = content.secrets.get(TOKEN, NewSecret())
        if kept.pop(TOKEN, None) and said is not None and said.value is None:
            raise validation_error_at("/secrets/token", "Must be given anew, since base_url is another")
    return kept


def _base_url(adapter: str | None, settings: Mapping[str, JsonValue]) -> object:
    """Where the source's token is sent to."""
    known = ADAPTERS.get(adapter or "")
    return None if known is None else getattr(known.settings.model_validate(settings), "base_url", None)


def _check(content: SourceContent, declared: Collection[str] | None) -> None:
    """Raises Problem 422 with every place that does not fit."""
    adapter = None if content.adapter is None else ADAPTERS.get(content.adapter)
    errors: list[Finding] = []
    if content.adapter is not None and adapter is None:
        errors.append(Finding("/adapter", f"Must be one of {', '.join(ADAPTERS)}"))
    elif adapter is None:
        errors += [
            Finding(f"/{part}", "Needs an adapter") for part in ("settings", "secrets") if getattr(content, part)
        ]
    else:
        errors += _validate_settings(adapter, content.settings)
        errors += [
            error for kind, said in content.secrets.items() for error in _validate_new_secret(adapter, kind, said)
        ]
    mapping, invalid = validate_mapping(content.mapping)
    errors += invalid
    errors += validate_defaults(content.defaults)
    if declared is not None:
        errors += find_undeclared(mapping, declared) + find_undeclared_defaults(content.defaults, declared)
    if errors:
        raise validation_error(
            "1 place is wrong; see errors." if len(errors) == 1 else f"{len(errors)} places are wrong; see errors.",
            *[{"pointer": error.pointer, "message": error.message} for error in errors],
        )


def _validate_settings(adapter: AnyAdapter, settings: Mapping[str, JsonValue]) -> list[Finding]:
    try:
        adapter.settings.model_validate(settings)
    except ValidationError as error:
        return [
            Finding(pointer(("settings", *found["loc"])), str(found["msg"]).removeprefix("Value error, "))
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    return []


def _validate_new_secret(adapter: AnyAdapter, kind: str, said: NewSecret | None) -> list[Finding]:
    place = pointer(("secrets", kind))
    if kind not in adapter.secret_kinds:
        return [Finding(place, f"{adapter.title} has: {', '.join(adapter.secret_kinds)}")]
    value = None if said is None else said.value
    if value is None:
        return []
    if not 0 < len(value) <= SECRET_CHARS_MAX or not value.isprintable() or value != value.strip():
        return [Finding(place, f"Must be 1 to {SECRET_CHARS_MAX} printable characters without blanks around them")]
    if kind in _PLAIN_SECRETS and len(value) < _PLAIN_SECRET_CHARS_MIN:
        return [
            Finding(
                place,
                f"Must have at least {_PLAIN_SECRET_CHARS_MIN} characters, since it is all that verifies a request",
            )
        ]
    if kind == "url" and not set(value) <= _URL_SAFE:
        return [Finding(place, "Must be letters, digits and - . _ ~, since it stands in a URL")]
    found = adapter.validate_secret(kind, value)
    return [] if found is None else [Finding(place, found)]


def reencryption_worker(configured: Sources) -> Periodic:
    """The worker that encrypts old secrets with the first key, at start and then now and then."""
    return Periodic("sources-reencrypt", _REENCRYPT_EVERY_S, configured.reencrypt)
