"""W3C trace context between a span and its text form. Needs only the OpenTelemetry API, and starts no exporter."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, TraceFlags

_LINKS_MAX = 128
"""The SDK's default bound of links per span; more would be dropped there anyway."""


def current_traceparent() -> str | None:
    """The current span's `traceparent` (W3C Trace Context level 1), or None outside a trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def span_context(traceparent: str) -> SpanContext | None:
    """The remote span that a `traceparent` names, or None if it is not readable."""
    parts = traceparent.split("-")
    if len(parts) < 4:
        return None
    try:
        context = SpanContext(int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3], 16)))
    except ValueError:
        return None
    return context if context.is_valid else None


def links(traceparents: Iterable[str | None]) -> list[Link]:
    """Links to the distinct contexts among these, bounded."""
    distinct = dict.fromkeys(text for text in traceparents if text)
    contexts = (span_context(text) for text in list(distinct)[:_LINKS_MAX])
    return [Link(context) for context in contexts if context is not None]
