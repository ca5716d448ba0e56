"""The leads that the bench sends: new people of some thousand companies who pass the template policy. It sends nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

COMPANIES = 4_000
RUNS_PER_AREA = 79
_AREAS = ("201", "202", "203")
RUNS_MAX = RUNS_PER_AREA * len(_AREAS)
PHONES_PER_RUN = 100_000
_INDUSTRIES = ("541511", "541512", "518210", "522110", "334111")
_LINES = ("software", "finance", "manufacturing")
_RATINGS = ("A+", "A", "B")
_COUNTRIES = ("US", "DE", "GB")


def submissions(run: int, *, occurred_at: bool = False) -> Iterator[bytes]:
    """JSON bodies of new people without end, other ones for each `run` below RUNS_MAX.

    Every fourth has a phone number too. With `occurred_at` there is a `%s` in its place, for the sender to fill in.
    """
    area, block = divmod(run, RUNS_PER_AREA)
    moment = b',"occurred_at":"%s"' if occurred_at else b""
    for n in itertools.count():
        company = n * 7919 % COMPANIES
        line, fourth = divmod(n, 4)
        number = f"+1{_AREAS[area]}{2_000_000 + block * PHONES_PER_RUN + line}"
        phone = "" if fourth or line >= PHONES_PER_RUN else f',"phone":"{number}"'
        text = (
            f'{{"source":"website","email":"lead-{run}-{n}@company{company}.example"{phone}'
            f',"first_name":"Ada","last_name":"Lovelace{n}","company":"Company {company}","title":"Head of Research"'
            f',"attributes":{{"employee_count":{50 + n % 900},"industry":"{_INDUSTRIES[n % 5]}"'
            f',"country":"{_COUNTRIES[n % 3]}","line_of_business":"{_LINES[n % 3]}","bbb_rating":"{_RATINGS[n % 3]}"}}'
            f',"campaign":{{"name":"autumn-{n % 20}","medium":"search"}}'
        )
        yield text.encode() + moment + b"}"
