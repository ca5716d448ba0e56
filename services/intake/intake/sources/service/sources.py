"""Configures sources. Secrets go in and never come out: they are sealed before they reach a statement, and opened in memory only."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog
from pydantic import JsonValue, ValidationError

from accord.db import Database, UnitOfWork, is_transient
from accord.http.conditional import precondition_failed
from accord.http.problems import Problem, not_found, pointer, validation_error
from accord.ids import new_id
from accord.terms.findings import Finding
from accord.workers import Periodic
from intake.sources import queries as sources
from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import AnyAdapter
from intake.sources.domain.mapping import default_flaws, read
from intake.sources.domain.source import SECRETS_VALID_MAX, SealedSecret, Source
from intake.sources.service.secrets import NotOpened, Vault

log = structlog.get_logger(__name__)

SOURCES_MAX = 1_000
"""Configured sources; each is a label of metrics."""
SECRET_CHARS_MAX = 2_000
_CHOSEN_CHARS_MIN = 16
"""A secret that is the whole proof, not the key of a signature, must not be guessable."""
_CHOSEN = frozenset({"url", "header", "bearer"})
_URL_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESEAL_EVERY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class NewSecret:
    """What a PUT says of the secrets of one use. `value` None: none is added. `keep_until`: how long the one before stays valid; None:
    until it is dropped or a third comes. `drop_previous`: only the newest stays."""

    value: str | None = field(default=None, repr=False)
    keep_until: datetime | None = None
    drop_previous: bool = False


@dataclass(frozen=True, slots=True)
class SourceContent:
    """What a PUT says of a source. Uses that `secrets` does not name stay as they are; None: those of the use are dropped."""

    adapter: str | None
    settings: Mapping[str, JsonValue]
    mapping: Mapping[str, JsonValue]
    defaults: Mapping[str, JsonValue]
    secrets: Mapping[str, NewSecret | None] = field(default_factory=dict, repr=False)


class Sources:
    """The use case of those who configure."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
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

        Raises Problem 409 without a key to seal a secret with, 412 and 428 by the ETag, 422 with pointers for what does not fit.
        """
        _check(content)
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
            if match is not None and match != etag(before):
                raise precondition_failed(etag(before))
            await sources.delete(unit_of_work.conn, name)
        self.changes += 1

    async def reseal(self) -> bool:
        """Seal with the first key what was sealed with another, so that the others can be taken away. Whether there is more to do."""
        if not self._vault.can_seal:
            return False
        after = ""
        while found := await self.page(after, 100):
            for source in found:
                if any(not self._vault.is_current(one.sealed) for one in source.secrets):
                    try:
                        await self._reseal(source.name)
                    except Exception as error:
                        if is_transient(error):
                            raise
                        log.exception(
                            "source_not_resealed", source=source.name
                        )  # the others are, and it is tried again
            after = found[-1].name
        return False

    async def _reseal(self, name: str) -> None:
        async with self._database.write_transaction() as unit_of_work:
            source = await sources.lock(unit_of_work.conn, name)
            if source is None:
                return
            resealed: list[SealedSecret] = []
            for one in source.secrets:
                if not self._vault.is_current(one.sealed):
                    try:
                        clear = self._vault.open(one.sealed, name, one.use, one.secret_id)
                    except NotOpened:
                        log.warning("secret_not_opened", source=name, use=one.use)
                        resealed.append(one)
                        continue
                    resealed.append(replace(one, sealed=self._vault.seal(clear, name, one.use, one.secret_id)))
                else:
                    resealed.append(one)
            await sources.save(unit_of_work.conn, replace(source, secrets=tuple(resealed)), unit_of_work.now)

    def _secrets(
        self, name: str, content: SourceContent, before: Source | None, now: datetime
    ) -> tuple[SealedSecret, ...]:
        kept: dict[str, list[SealedSecret]] = {}
        if before is not None and before.adapter == content.adapter:
            for one in before.secrets:
                if one.until is None or one.until > now:
                    kept.setdefault(one.use, []).append(one)
        for use, said in content.secrets.items():
            if said is None:
                kept.pop(use, None)
                continue
            old = kept.get(use, [])
            if said.value is not None:
                kept[use] = self._added(name, use, said, old, now)
            elif said.drop_previous:
                kept[use] = old[:1]
            elif said.keep_until is not None:
                kept[use] = [*old[:1], *(replace(one, until=said.keep_until) for one in old[1:])]
        return tuple(one for use in sorted(kept) for one in kept[use])

    def _added(
        self, name: str, use: str, said: NewSecret, old: Sequence[SealedSecret], now: datetime
    ) -> list[SealedSecret]:
        """The new secret first, then what stays valid of the old; the same secret put again is no new one."""
        if not self._vault.can_seal:
            raise Problem(
                409,
                "no-key-for-secrets",
                "There is no key to seal secrets with",
                "Set ACCORD_SECRETS_KEYS (or ACCORD_SECRETS_KEYS_FILE) of intake to a key of 32 bytes in base64, then try again.",
            )
        value = said.value or ""
        known = next((one for one in old if self._is(name, one, value)), None)
        secret_id = str(new_id())
        first = known or SealedSecret(use, secret_id, self._vault.seal(value, name, use, secret_id), now)
        rest = [one for one in old if one is not known]
        if said.drop_previous:
            rest = []
        elif said.keep_until is not None:
            rest = [replace(one, until=said.keep_until) for one in rest]
        return [replace(first, until=None), *rest][:SECRETS_VALID_MAX]

    def _is(self, name: str, secret: SealedSecret, value: str) -> bool:
        try:
            clear = self._vault.open(secret.sealed, name, secret.use, secret.secret_id)
        except NotOpened:
            return False
        return hmac.compare_digest(clear.encode(), value.encode())


def etag(source: Source) -> str:
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
            "There is such a source already",
            "Send its ETag as If-Match to change it, so that nobody's change is lost.",
            headers={"ETag": etag(before)},
        )
    if match != etag(before):
        raise precondition_failed(etag(before))


async def _check_room(unit_of_work: UnitOfWork) -> None:
    if await sources.count(unit_of_work.conn) >= SOURCES_MAX:
        raise Problem(409, "too-many-sources", "There are too many sources", f"There may be {SOURCES_MAX} of them.")


def _check(content: SourceContent) -> None:
    """Raises Problem 422 with every place that does not fit."""
    adapter = None if content.adapter is None else ADAPTERS.get(content.adapter)
    flaws: list[Finding] = []
    if content.adapter is not None and adapter is None:
        flaws.append(Finding("/adapter", f"Must be one of {', '.join(ADAPTERS)}"))
    elif adapter is None:
        flaws += [Finding(f"/{part}", "Needs an adapter") for part in ("settings", "secrets") if getattr(content, part)]
    else:
        flaws += _settings_flaws(adapter, content.settings)
        flaws += [flaw for use, said in content.secrets.items() for flaw in _secret_flaws(adapter, use, said)]
    flaws += read(content.mapping)[1]
    flaws += default_flaws(content.defaults)
    if flaws:
        raise validation_error(
            "1 place is wrong; see errors." if len(flaws) == 1 else f"{len(flaws)} places are wrong; see errors.",
            *[{"pointer": flaw.pointer, "message": flaw.message} for flaw in flaws],
        )


def _settings_flaws(adapter: AnyAdapter, settings: Mapping[str, JsonValue]) -> list[Finding]:
    try:
        adapter.settings.model_validate(settings)
    except ValidationError as error:
        return [
            Finding(pointer(("settings", *found["loc"])), str(found["msg"]).removeprefix("Value error, "))
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    return []


def _secret_flaws(adapter: AnyAdapter, use: str, said: NewSecret | None) -> list[Finding]:
    place = pointer(("secrets", use))
    if use not in adapter.uses:
        return [Finding(place, f"{adapter.title} has: {', '.join(adapter.uses)}")]
    value = None if said is None else said.value
    if value is None:
        return []
    if not 0 < len(value) <= SECRET_CHARS_MAX or not value.isprintable() or value != value.strip():
        return [Finding(place, f"Must be 1 to {SECRET_CHARS_MAX} printable characters without blanks around them")]
    if use in _CHOSEN and len(value) < _CHOSEN_CHARS_MIN:
        return [Finding(place, f"Must have at least {_CHOSEN_CHARS_MIN} characters, since it is the whole proof")]
    if use == "url" and not set(value) <= _URL_SAFE:
        return [Finding(place, "Must be letters, digits and - . _ ~, since it stands in a URL")]
    found = adapter.secret_flaw(use, value)
    return [] if found is None else [Finding(place, found)]


def reseal_worker(configured: Sources) -> Periodic:
    """The worker that seals old secrets with the first key, at start and then now and then."""
    return Periodic("sources-reseal", _RESEAL_EVERY_S, configured.reseal)
