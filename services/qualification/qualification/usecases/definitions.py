"""The lead definition as an agreement: what is checked, how it reads on paper, and the version in force, compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accord.agreements import ActiveCache, AgreementStore, Finding, Kind, Section
from qualification.domain.checks import check
from qualification.domain.definition import Definition
from qualification.domain.paper import paper
from qualification.domain.rules import Rules, compile_definition

_UNSTAMPED = 0


def _validate(content: Mapping[str, object]) -> list[Finding]:
    return [Finding(found.pointer, found.message) for found in check(content)]


def _paper(content: Mapping[str, object]) -> list[Section]:
    parts = paper(Definition.model_validate(content))
    return [Section(part.heading, part.paragraphs, part.columns, part.rows) for part in parts]


KIND = Kind(kind="definition", path="/v1/definition", validate=_validate, paper=_paper)


class Definitions:
    """The definition in force, at hand for every batch and request."""

    def __init__(self, store: AgreementStore) -> None:
        self._cache = ActiveCache(
            store, lambda content: compile_definition(_UNSTAMPED, Definition.model_validate(content))
        )
        self._stamped: Rules | None = None

    async def in_force(self) -> Rules | None:
        """The rules by which everything is judged now; None while no definition has come into force."""
        current = await self._cache.current()
        if current is None:
            return None
        version, rules = current
        if self._stamped is None or self._stamped.version != version:
            self._stamped = replace(rules, version=version)
        return self._stamped
