"""The lead definition as an agreement: what is checked, how it reads on paper, and the version in force, compiled once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from accord.agreements import ActiveCache, AgreementStore, Kind, Section
from accord.terms.patterns import AS_IT_STANDS
from qualification.domain.checks import check
from qualification.domain.definition import Definition
from qualification.domain.lead import Lead
from qualification.domain.paper import paper
from qualification.domain.routing import Routing
from qualification.domain.rules import Rules, compile_definition
from qualification.usecases.routing import RoutingBook


def _paper(content: Mapping[str, object]) -> list[Section]:
    return paper(_read(content))


def _read(content: Mapping[str, object]) -> Definition:
    return Definition.model_validate(content, context=AS_IT_STANDS)


KIND = Kind(kind="definition", path="/v1/definition", validate=check, paper=_paper)


@dataclass(slots=True)
class Book:
    """The version in force, None while there is none, and every version by which a lead may be judged."""

    in_force: Rules | None
    versions: dict[int, Rules]
    _read: Callable[[int, AsyncConnection | None], Awaitable[Rules]]
    kinds: frozenset[str]
    """The kinds of activity that any of the versions asks for."""
    routing: Routing | None = None
    """Who gets which lead; None while nobody has written it."""

    def rules_of(self, lead: Lead) -> Rules | None:
        """The version that a lead is judged by, or would enter by."""
        return self.in_force if lead.ruled_by is None else self.versions[lead.ruled_by]

    async def know(self, numbers: Iterable[int], conn: AsyncConnection | None = None) -> None:
        """See to it that these versions are there: another process may have seen one come into force before this one did.

        Whoever holds a transaction gives its connection.
        """
        for number in numbers:
            if number not in self.versions:
                self.versions[number] = await self._read(number, conn)


class Definitions:
    """The definition in force, and those that were, at hand for every batch and request."""

    def __init__(self, store: AgreementStore, routing: RoutingBook | None = None) -> None:
        self._store = store
        self._routing = routing
        self._cache = ActiveCache(store, _read)
        self._compiled: dict[int, Rules] = {}
        self._agreed: dict[int, Definition] = {}
        self._book: Book | None = None

    async def in_force(self) -> Rules | None:
        """The rules by which everything is judged now; None while no definition has come into force."""
        return (await self.book()).in_force

    async def book(self, conn: AsyncConnection | None = None) -> Book:
        """All of them. Whoever holds a transaction gives its connection: looking may take one of its own otherwise."""
        current = await self._cache.current(conn)
        number = None if current is None else current[0]
        known = self._book
        routing = await self._routing.in_force(conn) if self._routing else None
        if known is not None and (known.in_force.version if known.in_force else None) == number:
            known.routing = routing
            return known
        in_force = None if number is None else await self._rules(number, conn)
        for version in range(1, number or 1):
            if version not in self._compiled and await self._was_in_force(version, conn):
                await self._rules(version, conn)
        kinds = frozenset(kind for rules in self._compiled.values() for kind in rules.kinds)
        self._book = Book(in_force, self._compiled, self._rules, kinds, routing)
        return self._book

    async def agreed(self, version: int) -> Definition:
        """The content of a version that is or was in force, as it was signed."""
        await self._rules(version)
        return self._agreed[version]

    async def _rules(self, version: int, conn: AsyncConnection | None = None) -> Rules:
        found = self._compiled.get(version)
        if found is None:
            stored = await self._store.get(version, conn)
            self._agreed[version] = _read(stored.content)
            rules = compile_definition(version, self._agreed[version])
            found = self._compiled[version] = replace(rules, since=stored.state.active_from)
        return found

    async def _was_in_force(self, version: int, conn: AsyncConnection | None) -> bool:
        return (await self._store.get(version, conn)).state.active_from is not None
