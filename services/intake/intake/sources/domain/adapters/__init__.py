"""The marketing tools that can speak to intake, one module each, and the one table of them. Pure: requests in, what they say out."""

from __future__ import annotations

from collections.abc import Mapping

from intake.sources.domain.adapters import (
    cloudevents,
    hubspot,
    linkedin,
    mailchimp,
    mautic,
    meta,
    segment,
    standard_webhooks,
    typeform,
)
from intake.sources.domain.adapters import custom as own
from intake.sources.domain.adapters.base import AnyAdapter

ADAPTERS: Mapping[str, AnyAdapter] = {
    adapter.name: adapter
    for adapter in (
        standard_webhooks.ADAPTER,
        cloudevents.ADAPTER,
        hubspot.ADAPTER,
        mautic.ADAPTER,
        mailchimp.ADAPTER,
        typeform.ADAPTER,
        meta.ADAPTER,
        linkedin.ADAPTER,
        segment.ADAPTER,
        own.MARKETO,
        own.GENERIC,
    )
}

__all__ = ["ADAPTERS"]
