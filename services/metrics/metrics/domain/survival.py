"""The Kaplan-Meier median: how long a step takes when leads still waiting are counted as waiting, not left out."""

from __future__ import annotations

from collections.abc import Sequence

_ROUNDING = 1e-9
"""The survival curve is a product of many quotients; a value this close to one half is one half."""


def km_median(finished: Sequence[int], censored: Sequence[int]) -> int | None:
    """The least duration by which half have finished; None while the curve stays above one half.

    `finished` are durations that ended in the step; `censored` are those of leads observed only so far. Both ascend,
    in one unit.
    S(t) is the product over durations u <= t of 1 - d(u) / n(u), with d(u) finished at u and n(u) observed for at
    least u;
    a lead censored at u counts as observed at u.
    Source: E. L. Kaplan, P. Meier, "Nonparametric estimation from incomplete observations", JASA 53 (1958) 457-481.
    """
    survival = 1.0
    done = gone = 0
    total = len(finished) + len(censored)
    while done < len(finished):
        at = finished[done]
        while gone < len(censored) and censored[gone] < at:
            gone += 1
        at_risk = total - done - gone
        next_done = done + 1
        while next_done < len(finished) and finished[next_done] == at:
            next_done += 1
        survival *= 1 - (next_done - done) / at_risk
        done = next_done
        if survival <= 0.5 + _ROUNDING:
            return at
    return None
