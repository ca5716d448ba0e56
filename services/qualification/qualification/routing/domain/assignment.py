"""Who gets a lead: `assign(asked, routing, state, now)` gives the owner, and why, to the last comparison. Pure; it moves nothing.

In this order:

1. the first rule that holds names the pool;
2. whoever had the lead before gets it again, else whoever was last given a lead of the same account: if that person is in a pool
   (any one, since an account is more than a rule), at work, and not full;
3. the pool, by its method, among those who are at work and not full;
4. the fallback pool, likewise;
5. nobody. That is an answer like the others, said in an event, and the lead waits. A lead that was to be taken away after a breach
   stays with its owner meanwhile.

Only a pick out of a pool (3 and 4) moves that pool's pointer. What people assign by hand, a lead that stays with its account, and a
merge move none, so nothing done by hand costs anybody the next turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from accord.terms.criteria import Facts, Leaf
from qualification.routing.domain.document import Method, Person, Pool, Routing
from qualification.routing.domain.pointer import Pointer, kept_for, pick

How = Literal["own", "account", "pool", "fallback", "nobody"]
"""Kept by whoever had it, kept with the account, picked from the rule's pool or the fallback, or given to nobody."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A lead that somebody is sought for.

    `owner` is the present or last one, `counted` whether the lead is among that person's open ones now, `avoid` whom not to take
    (after a breach).
    """

    lead_id: UUID
    facts: Facts
    owner: str | None = None
    counted: bool = False
    account_owner: str | None = None
    avoid: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Where the pools stand and how many open leads each person has."""

    pointers: Mapping[str, Pointer] = field(default_factory=dict)
    open: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleLooked:
    """A rule that was looked at. `why` is empty for one without `when`."""

    rule: str
    pool: str
    held: bool
    why: tuple[Leaf, ...]


@dataclass(frozen=True, slots=True)
class StickyLooked:
    """Somebody whom the lead would have stayed with, and why it did or did not."""

    because: Literal["own", "account"]
    owner: str
    taken: bool
    why: str


@dataclass(frozen=True, slots=True)
class MemberLooked:
    """One member of a pool as it stood before the pick."""

    owner: str
    weight: int
    current: float
    open: int
    capacity: int | None
    available: bool
    why_not: str | None


@dataclass(frozen=True, slots=True)
class PoolEvaluation:
    """A pool that was asked, and whom it gave."""

    pool: str
    method: Method
    fallback: bool
    members: tuple[MemberLooked, ...]
    picked: str | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What came out. `pool` is the one that the owner was found in; where nobody was found, the one in which the lead waits."""

    lead_id: UUID
    owner: str | None
    how: How
    pool: str | None
    rules: tuple[RuleLooked, ...]
    sticky: tuple[StickyLooked, ...]
    pools: tuple[PoolEvaluation, ...]

    @property
    def why(self) -> str:
        """In one sentence, without any value of the lead."""
        rule = next((looked for looked in self.rules if looked.held), None)
        began = f"rule {rule.rule} leads to pool {rule.pool}" if rule else "no rule holds"
        if self.how == "own":
            return f"{began}; {self.owner} had the lead before and keeps it"
        if self.how == "account":
            return f"{began}; {self.owner} has the account and gets this lead of it too"
        return "; ".join(
            [
                began,
                *(_describe_evaluation(looked) for looked in self.pools),
                *(() if self.owner else ("nobody gets it yet",)),
            ]
        )


def assign(asked: Asked, routing: Routing, state: State, now: datetime) -> tuple[Assignment, State]:
    """Who gets the lead at this moment, and the state after it."""
    looked, pool = _rule(asked, routing)
    sticky: list[StickyLooked] = []
    for because, owner in _stickers(asked, routing):
        why_not = _not_to(owner, asked, routing, state, now)
        sticky.append(StickyLooked(because, owner, why_not is None, why_not or "available"))
        if why_not is None:
            found = _pool_with(owner, pool, routing)
            made = Assignment(asked.lead_id, owner, because, found, looked, tuple(sticky), ())
            return made, _moved(state, asked, owner)
    return _from_pools(asked, routing, state, now, pool, looked, tuple(sticky))


def available(routing: Routing, pool: str, state: State, now: datetime) -> tuple[PoolEvaluation, bool]:
    """How the members of a pool stand now, and whether any of them could be given a lead."""
    members = _members(routing.pools[pool], Asked(_NOBODY, _NoFacts()), routing, state, now)
    looked = PoolEvaluation(pool, routing.pools[pool].method, pool == routing.fallback, members, None)
    return looked, any(member.available for member in members)


def _rule(asked: Asked, routing: Routing) -> tuple[tuple[RuleLooked, ...], str | None]:
    """The rules up to the first that holds, and its pool; the fallback if none does."""
    looked: list[RuleLooked] = []
    for rule in routing.rules:
        held = rule.when is None or rule.when.holds(asked.facts)
        why = tuple(rule.when.explain(asked.facts)) if rule.when else ()
        looked.append(RuleLooked(rule.key, rule.pool, held, why))
        if held:
            return tuple(looked), rule.pool
    return tuple(looked), None


def _stickers(asked: Asked, routing: Routing) -> Iterable[tuple[Literal["own", "account"], str]]:
    if asked.owner is not None:
        yield "own", asked.owner
    if routing.same_account and asked.account_owner is not None and asked.account_owner != asked.owner:
        yield "account", asked.account_owner


def _from_pools(
    asked: Asked,
    routing: Routing,
    state: State,
    now: datetime,
    pool: str | None,
    rules: tuple[RuleLooked, ...],
    sticky: tuple[StickyLooked, ...],
) -> tuple[Assignment, State]:
    asks = [key for key in dict.fromkeys([pool, routing.fallback]) if key is not None]
    pools: list[PoolEvaluation] = []
    for key in asks:
        how: How = "pool" if key == pool else "fallback"
        looked, pointer = _pick(routing.pools[key], asked, routing, state, now, fallback=how == "fallback")
        pools.append(looked)
        if looked.picked is not None:
            made = Assignment(asked.lead_id, looked.picked, how, key, rules, sticky, tuple(pools))
            return made, _moved(State({**state.pointers, key: pointer}, state.open), asked, looked.picked)
    made = Assignment(asked.lead_id, None, "nobody", asks[0] if asks else None, rules, sticky, tuple(pools))
    return made, state if asked.avoid else _moved(state, asked, None)


def _pick(
    pool: Pool, asked: Asked, routing: Routing, state: State, now: datetime, *, fallback: bool
) -> tuple[PoolEvaluation, Pointer]:
    pointer = kept_for(state.pointers.get(pool.key, Pointer()), pool.weights)
    members = _members(pool, asked, routing, state, now)
    free = [member for member in members if member.available]
    if pool.method == "least_open" and free:
        # Of such small whole numbers equal quotients are equal floats, and others are not.
        least = min(member.open / member.weight for member in free)
        free = [member for member in free if member.open / member.weight == least]
    picked: str | None = None
    if free:
        picked, pointer = pick(pointer, {member.owner: member.weight for member in free})
    return PoolEvaluation(pool.key, pool.method, fallback, members, picked), pointer


def _members(pool: Pool, asked: Asked, routing: Routing, state: State, now: datetime) -> tuple[MemberLooked, ...]:
    pointer = state.pointers.get(pool.key, Pointer())
    looked: list[MemberLooked] = []
    for owner, weight in pool.weights.items():
        why_not = _not_to(owner, asked, routing, state, now)
        capacity = routing.people[owner].capacity
        current = pointer.of(owner)
        count = _open(owner, asked, state)
        looked.append(MemberLooked(owner, weight, current, count, capacity, why_not is None, why_not))
    return tuple(looked)


def _not_to(owner: str, asked: Asked, routing: Routing, state: State, now: datetime) -> str | None:
    """Why this person gets nothing now, in words; None if it could be."""
    if owner not in routing.members:
        return "is in no pool"
    if owner == asked.avoid:
        return "has broken the clause that the lead is taken away for"
    person: Person = routing.people[owner]
    return person.away(now) or person.full(_open(owner, asked, state))


def _open(owner: str, asked: Asked, state: State) -> int:
    """Open leads of a person beside the one that is asked for."""
    return state.open.get(owner, 0) - (1 if asked.counted and owner == asked.owner else 0)


def _pool_with(owner: str, preferred: str | None, routing: Routing) -> str:
    """The pool in whose name somebody is given a lead: the rule's where that person is in it."""
    if preferred is not None and owner in routing.pools[preferred].weights:
        return preferred
    return next(pool.key for pool in routing.pools.values() if owner in pool.weights)


def _moved(state: State, asked: Asked, owner: str | None) -> State:
    """The state after the lead has gone to somebody, or to nobody."""
    if asked.counted and asked.owner == owner:
        return state
    counts = dict(state.open)
    if asked.counted and asked.owner is not None:
        counts[asked.owner] = counts.get(asked.owner, 0) - 1
    if owner is not None:
        counts[owner] = counts.get(owner, 0) + 1
    return State(state.pointers, counts)


_METHODS: dict[Method, str] = {
    "smooth_weighted_round_robin": "is next by smooth weighted round robin",
    "least_open": "has the fewest open leads",
}


def _describe_evaluation(looked: PoolEvaluation) -> str:
    free = sum(member.available for member in looked.members)
    where = f"the fallback pool {looked.pool}" if looked.fallback else f"pool {looked.pool}"
    if looked.picked is None:
        return f"in {where} none of {len(looked.members)} is available"
    return f"in {where} {looked.picked} {_METHODS[looked.method]} ({free} of {len(looked.members)} available)"


_NOBODY = UUID(int=0)


class _NoFacts:
    attributes: Mapping[str, object] = {}

    def value(self, path: str, within: object) -> object:
        raise AssertionError("nothing is asked of nobody")
