"""How much a test tries: a short form in every run, a long one in `make chaos`. Both prove the same of fewer or more cases."""

from __future__ import annotations

import os

LONG = os.environ.get("ACCORD_TESTS") == "long"


def cases(long: int, short: int | None = None) -> int:
    """How many cases: `long`, or in the short form `short`, a third where that is not given."""
    if LONG:
        return long
    return max(1, long // 3) if short is None else short
