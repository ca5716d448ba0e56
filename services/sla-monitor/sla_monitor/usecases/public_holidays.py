"""National holidays by country and subdivision, from the library `holidays`, resolved to plain dates before the domain sees them."""

from __future__ import annotations

from functools import lru_cache

import holidays

from sla_monitor.domain.calendars import DAYS_FROM, DAYS_TO, UnknownRegion

_YEARS = range(DAYS_FROM.year, DAYS_TO.year + 1)


@lru_cache(maxsize=256)
def public_holidays(country: str, subdivision: str | None) -> dict[int, str]:
    """The names of the public holidays by the ordinal of their day. Raises UnknownRegion. The caller must not change the result."""
    countries = holidays.list_supported_countries()
    if country not in countries:
        raise UnknownRegion(f"no public holidays are known for the country {country}", subdivision=False)
    if subdivision is not None and subdivision not in countries[country]:
        raise UnknownRegion(f"{country} has no subdivision {subdivision} with holidays of its own", subdivision=True)
    dates = holidays.country_holidays(country, subdiv=subdivision, years=_YEARS)
    return {day.toordinal(): name for day, name in dates.items() if DAYS_FROM <= day <= DAYS_TO}
