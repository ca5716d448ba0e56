"""The Wilson score interval of a proportion: how far a conversion measured on n leads may be from the true one."""

from __future__ import annotations

from math import sqrt

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float] | None:
    """Lower and upper bound of the proportion `successes / n`; None when n is 0.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927)
    209-212.
    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    if n == 0:
        return None
    share = successes / n
    spread = z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At 0 and at n the bound is the proportion itself; rounding must not put it on the wrong side.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
