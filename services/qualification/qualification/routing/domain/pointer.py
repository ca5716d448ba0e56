"""Smooth weighted round robin with its pointer said in the open: who is next follows from it alone, never from who had the last lead.

The algorithm is nginx's (`src/http/ngx_http_upstream_round_robin.c`, since 1.3.1): with every pick each of those who may be picked
gains its weight, the one with the most is picked and pays the sum of the weights. From a fresh start and with the same members
throughout, nobody is ever a lead per weight unit away from its share, in any window.

One thing is added. There, a server that comes back keeps a number that was counted in other weights; here the numbers are kept with
the sum of the weights that they were counted in, and brought over when another set may be picked. So what somebody is owed is owed in
leads, and an absence neither makes a debt nor loses one.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

UNIT = 1_000_000
"""A weight of 1 in the numbers of a pointer: fine enough that bringing them over rounds nothing that matters."""


class Pointer(Struct, frozen=True, gc=False):
    """Where a pool stands. `currents` are nginx's current weights times UNIT, counted while the weights summed to `total`.

    A current of `total * UNIT` is one lead that is owed.
    """

    total: int = 0
    currents: Mapping[str, int] = field(default_factory=dict)

    def current_weight(self, owner: str) -> float:
        """The current weight of a member, as nginx would show it."""
        return self.currents.get(owner, 0) / UNIT


def pick(pointer: Pointer, weights: Mapping[str, int]) -> tuple[str, Pointer]:
    """Who is next of those that may be picked (owner → weight, at least one), and the pointer after it. Of equals the first."""
    total = sum(weights.values())
    currents = dict(_rescaled(pointer, total))
    best = ""
    for owner, weight in weights.items():
        currents[owner] = currents.get(owner, 0) + weight * UNIT
        if not best or currents[owner] > currents[best]:
            best = owner
    currents[best] -= total * UNIT
    return best, Pointer(total, currents)


def without_former_members(pointer: Pointer, owners: Mapping[str, int]) -> Pointer:
    """The pointer without those who are no longer members."""
    if pointer.currents.keys() <= owners.keys():
        return pointer
    return Pointer(pointer.total, {owner: at for owner, at in pointer.currents.items() if owner in owners})


def _rescaled(pointer: Pointer, total: int) -> Mapping[str, int]:
    if pointer.total in (0, total):
        return pointer.currents
    return {owner: _divide_rounded(at * total, pointer.total) for owner, at in pointer.currents.items()}


def _divide_rounded(number: int, by: int) -> int:
    return (2 * number + by) // (2 * by)
