"""The lead definition as an agreement: what is checked, how it reads on paper, and the version in force, compiled once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import ActiveVersion, AgreementStore, Kind, Section
from accord.agreements.store import InvalidContent
from accord.db import connection_of
from accord.terms.findings import Finding
from accord.terms.patterns import SKIP_PATTERN_CHECKS
from qualification.definition.domain.checks import check_definition
from qualification.definition.domain.definition import Definition
from qualification.definition.domain.paper import describe_definition
from qualification.definition.domain.rules import Rules, compile_definition
from qualification.definition.queries import stages


def _paper(content: Mapping[str, object]) -> list[Section]:
    return describe_definition(_read(content))


def _read(content: Mapping[str, object]) -> Definition:
    return Definition.model_validate(content, context=SKIP_PATTERN_CHECKS)


async def _check_stranded(conn: AsyncConnection, content: Mapping[str, object]) -> list[str]:
    """Refuse a version that would leave leads in stages that it does not know. Leads that are won or lost may stay there."""
    definition = _read(content)
    counted = await stages.count_leads_outside(
        await connection_of(conn), {stage.key for stage in definition.stages} | definition.moves.keys()
    )
    findings = [
        Finding("/moves", f"{leads} open leads stand in {stage}, which this version drops: say where they go on")
        for stage, leads in counted.items()
    ]
    if findings:
        raise InvalidContent(findings)
    return []


KIND = Kind(kind="definition", path="/v1/definition", validate=check_definition, paper=_paper, warn=_check_stranded)


class DefinitionVersions(NamedTuple):
    """The version in force, None while there is none, and every version that is loaded: what `load_versions` reads is there too."""

    in_force: Rules | None
    versions: Mapping[int, Rules]
    kinds: frozenset[str]
    """The kinds of activity that any of the versions asks for."""


class DefinitionVersionCache:
    """The definition in force, and those that were, at hand for every batch and request."""

    def __init__(self, store: AgreementStore) -> None:
        self._store = store
        self._active = ActiveVersion(store, self._load)
        self._definitions: dict[int, Definition] = {}
        self._compiled: dict[int, Rules] = {}
        self._versions: DefinitionVersions | None = None

    async def in_force(self, conn: AsyncConnection | None = None) -> Rules | None:
        """The rules in force; None while no definition has come into force."""
        return (await self.get_versions(conn)).in_force

    async def get_versions(self, conn: AsyncConnection | None = None) -> DefinitionVersions:
        """All of them. Whoever holds a transaction passes its connection; otherwise it may take one of its own."""
        return await self._active.get(conn)

    async def load_versions(self, numbers: Iterable[int], conn: AsyncConnection | None = None) -> None:
        """Load these versions: another process may have seen one come into force before this one did.

        Whoever holds a transaction gives its connection.
        """
        unknown = set(numbers) - self._compiled.keys()
        # Those before it too, since a lead passes all of them on its way to a newer one.
        for number in range(1, max(unknown, default=0) + 1):
            if number in unknown or (number not in self._compiled and await self._was_in_force(number, conn)):
                await self._rules(number, conn)

    async def definition_of(self, version: int) -> Definition:
        """The content of a version that is or was in force, as it was signed."""
        await self._rules(version)
        return self._definitions[version]

    async def _load(self, number: int | None, conn: AsyncConnection | None) -> DefinitionVersions:
        known = self._versions
        if known is not None and (known.in_force.version if known.in_force else None) == number:
            return known
        for version in range(1, number or 1):
            if version not in self._compiled and await self._was_in_force(version, conn):
                await self._rules(version, conn)
        in_force = None if number is None else await self._rules(number, conn)
        kinds = frozenset(kind for rules in self._compiled.values() for kind in rules.kinds)
        self._versions = DefinitionVersions(in_force, self._compiled, kinds)
        return self._versions

    async def _rules(self, version: int, conn: AsyncConnection | None = None) -> Rules:
        found = self._compiled.get(version)
        if found is None:
            stored = await self._store.get(version, conn)
            self._definitions[version] = _read(stored.content)
            rules = compile_definition(version, self._definitions[version])
            found = self._compiled[version] = replace(rules, since=stored.state.active_from)
        return found

    async def _was_in_force(self, version: int, conn: AsyncConnection | None) -> bool:
        return (await self._store.get(version, conn)).state.active_from is not None
