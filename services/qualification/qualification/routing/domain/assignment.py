"""Who gets a lead: `assign(lead, routing, state, now)` gives the owner, and why, to the last comparison. Pure; it moves nothing.

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
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct, field

from accord.terms.criteria import Facts, Leaf
from qualification.routing.domain.document import Method, Person, Pool, Routing
from qualification.routing.domain.pointer import Pointer, pick, without_former_members

How = Literal["own", "account", "pool", "fallback", "nobody"]
"""Kept by whoever had it, kept with the account, picked from the rule's pool or the fallback, or given to nobody."""


class RoutingInput(Struct, frozen=True, gc=False):
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


class RoutingState(Struct, frozen=True, gc=False):
    """Where the pools stand and how many open leads each person has."""

    pointers: Mapping[str, Pointer] = field(default_factory=dict)
    open: Mapping[str, int] = field(default_factory=dict)


class RuleEvaluation(Struct, frozen=True, gc=False):
    """A rule that was looked at. `why` is empty for one without `when`."""

    rule: str
    pool: str
    held: bool
    why: tuple[Leaf, ...]


class StickyEvaluation(Struct, frozen=True, gc=False):
    """Somebody whom the lead would have stayed with, and why it did or did not."""

    because: Literal["own", "account"]
    owner: str
    taken: bool
    why: str


class MemberEvaluation(Struct, frozen=True, gc=False):
    """One member of a pool as it stood before the pick."""

    owner: str
    weight: int
    current: float
    open: int
    capacity: int | None
    available: bool
    why_not: str | None


class PoolEvaluation(Struct, frozen=True, gc=False):
    """A pool that was asked, and whom it gave."""

    pool: str
    method: Method
    fallback: bool
    members: tuple[MemberEvaluation, ...]
    picked: str | None


class Assignment(Struct, frozen=True, gc=False):
    """What came out. `pool` is the one that the owner was found in; where nobody was found, the one in which the lead waits."""

    lead_id: UUID
    owner: str | None
    how: How
    pool: str | None
    rules: tuple[RuleEvaluation, ...]
    sticky: tuple[StickyEvaluation, ...]
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


def assign(lead: RoutingInput, routing: Routing, state: RoutingState, now: datetime) -> tuple[Assignment, RoutingState]:
    """Who gets the lead at this moment, and the state after it."""
    looked, pool = _evaluate_rules(lead, routing)
    sticky: list[StickyEvaluation] = []
    for because, owner in _sticky_owners(lead, routing):
        why_not = _why_unavailable(owner, lead, routing, state, now)
        sticky.append(StickyEvaluation(because, owner, why_not is None, why_not or "available"))
        if why_not is None:
            found = _pool_with(owner, pool, routing)
            made = Assignment(lead.lead_id, owner, because, found, looked, tuple(sticky), ())
            return made, _state_after(state, lead, owner)
    return _assign_from_pools(lead, routing, state, now, pool, looked, tuple(sticky))


def evaluate_pool(routing: Routing, pool: str, state: RoutingState, now: datetime) -> tuple[PoolEvaluation, bool]:
    """How the members of a pool stand now, and whether any of them could be given a lead."""
    members = _evaluate_members(routing.pools[pool], RoutingInput(_NOBODY, _NoFacts()), routing, state, now)
    looked = PoolEvaluation(pool, routing.pools[pool].method, pool == routing.fallback, members, None)
    return looked, any(member.available for member in members)


def _evaluate_rules(lead: RoutingInput, routing: Routing) -> tuple[tuple[RuleEvaluation, ...], str | None]:
    """The rules up to the first that holds, and its pool; the fallback if none does."""
    looked: list[RuleEvaluation] = []
    for rule in routing.rules:
        held = rule.when is None or rule.when.holds(lead.facts)
        why = tuple(rule.when.explain(lead.facts)) if rule.when else ()
        looked.append(RuleEvaluation(rule.key, rule.pool, held, why))
        if held:
            return tuple(looked), rule.pool
    return tuple(looked), None


def _sticky_owners(lead: RoutingInput, routing: Routing) -> Iterable[tuple[Literal["own", "account"], str]]:
    if lead.owner is not None:
        yield "own", lead.owner
    if routing.same_account and lead.account_owner is not None and lead.account_owner != lead.owner:
        yield "account", lead.account_owner


def _assign_from_pools(
    lead: RoutingInput,
    routing: Routing,
    state: RoutingState,
    now: datetime,
    pool: str | None,
    rules: tuple[RuleEvaluation, ...],
    sticky: tuple[StickyEvaluation, ...],
) -> tuple[Assignment, RoutingState]:
    asks = [key for key in dict.fromkeys([pool, routing.fallback]) if key is not None]
    pools: list[PoolEvaluation] = []
    for key in asks:
        how: How = "pool" if key == pool else "fallback"
        looked, pointer = _pick_from_pool(routing.pools[key], lead, routing, state, now, fallback=how == "fallback")
        pools.append(looked)
        if looked.picked is not None:
            made = Assignment(lead.lead_id, looked.picked, how, key, rules, sticky, tuple(pools))
            return made, _state_after(RoutingState({**state.pointers, key: pointer}, state.open), lead, looked.picked)
    made = Assignment(lead.lead_id, None, "nobody", asks[0] if asks else None, rules, sticky, tuple(pools))
    return made, state if lead.avoid else _state_after(state, lead, None)


def _pick_from_pool(
    pool: Pool, lead: RoutingInput, routing: Routing, state: RoutingState, now: datetime, *, fallback: bool
) -> tuple[PoolEvaluation, Pointer]:
    pointer = without_former_members(state.pointers.get(pool.key, Pointer()), pool.weights)
    members = _evaluate_members(pool, lead, routing, state, now)
    free = [member for member in members if member.available]
    if pool.method == "least_open" and free:
        # Of such small whole numbers equal quotients are equal floats, and others are not.
        least = min(member.open / member.weight for member in free)
        free = [member for member in free if member.open / member.weight == least]
    picked: str | None = None
    if free:
        picked, pointer = pick(pointer, {member.owner: member.weight for member in free})
    return PoolEvaluation(pool.key, pool.method, fallback, members, picked), pointer


def _evaluate_members(
    pool: Pool, lead: RoutingInput, routing: Routing, state: RoutingState, now: datetime
) -> tuple[MemberEvaluation, ...]:
    pointer = state.pointers.get(pool.key, Pointer())
    looked: list[MemberEvaluation] = []
    for owner, weight in pool.weights.items():
        why_not = _why_unavailable(owner, lead, routing, state, now)
        capacity = routing.people[owner].capacity
        current = pointer.current_weight(owner)
        count = _open_leads(owner, lead, state)
        looked.append(MemberEvaluation(owner, weight, current, count, capacity, why_not is None, why_not))
    return tuple(looked)


def _why_unavailable(
    owner: str, lead: RoutingInput, routing: Routing, state: RoutingState, now: datetime
) -> str | None:
    """Why this person gets nothing now, in words; None if it could be."""
    if owner not in routing.members:
        return "is in no pool"
    if owner == lead.avoid:
        return "has broken the clause that the lead is taken away for"
    person: Person = routing.people[owner]
    return person.why_absent(now) or person.why_full(_open_leads(owner, lead, state))


def _open_leads(owner: str, lead: RoutingInput, state: RoutingState) -> int:
    """Open leads of a person beside the one that is asked for."""
    return state.open.get(owner, 0) - (1 if lead.counted and owner == lead.owner else 0)


def _pool_with(owner: str, preferred: str | None, routing: Routing) -> str:
    """The pool in whose name somebody is given a lead: the rule's where that person is in it."""
    if preferred is not None and owner in routing.pools[preferred].weights:
        return preferred
    return next(pool.key for pool in routing.pools.values() if owner in pool.weights)


def _state_after(state: RoutingState, lead: RoutingInput, owner: str | None) -> RoutingState:
    """The state after the lead has gone to somebody, or to nobody."""
    if lead.counted and lead.owner == owner:
        return state
    counts = dict(state.open)
    if lead.counted and lead.owner is not None:
        counts[lead.owner] = counts.get(lead.owner, 0) - 1
    if owner is not None:
        counts[owner] = counts.get(owner, 0) + 1
    return RoutingState(state.pointers, counts)


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
