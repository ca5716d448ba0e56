"""Logs, traces and where they go: JSON lines on stdout, and spans to an OTLP endpoint if one is set. Secrets, bodies and
the messages of foreign exceptions (which quote values) are never written, nor is the same warning more than once in ten seconds."""

from __future__ import annotations

import logging
import os
import random
import re
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson
import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from starlette.types import Scope

from accord.tracing import span_context

REDACTED = "[redacted]"
_SECRET_WORDS = re.compile(
    r"authorization|cookie|passw|secret|token|api_?key|sasl|credential|jwt|bearer|body|payload|e_?mail|phone|first_name|last_name|full_name",
    re.IGNORECASE,
)
_SAFE_KEY = re.compile(r"(_count|_s|_ms|_bytes|_rows|_max)\Z")
_URL_PASSWORD = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^:/@\s]*):[^@/\s]+@", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer)\s+[A-Za-z0-9._~+/=-]+", re.IGNORECASE)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_MESSAGE_IS_OURS = (OSError, TimeoutError, RuntimeError, AssertionError, TypeError, AttributeError, ImportError)
_FRAMES_MAX = 30
_TEXT_CHARS_MAX = 2_000
_REPEATS_EVERY_S = 10.0
_REPEATS_MAX = 1_000
_NOT_COMPARED = frozenset({"timestamp", "attempt"})

EventDict = MutableMapping[str, Any]


def configure_logging(level: str = "info", *, service: str | None = None) -> None:
    """One JSON line per event on stdout, for our logs and those of libraries (uvicorn, aiokafka, alembic)."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
        render_exception,
        redact,
    ]
    numeric = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Stdout()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_repeated, *shared],  # first, since redacting leaves no record
            processors=[_add_repeated, structlog.stdlib.ProcessorFormatter.remove_processors_meta, _as_json],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric)
    for name, floor in (
        ("uvicorn", logging.INFO),
        ("aiokafka", logging.WARNING),
        ("httpx", logging.WARNING),
        ("asyncio", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(max(numeric, floor))


@dataclass(slots=True)
class _Window:
    """The time after a line in which the same is not written again."""

    begun_at: float
    unwritten: int = 0
    last: logging.LogRecord | None = None


class RepeatLimiter:
    """Holds back warnings and errors that say the same as a line of the last ten seconds, and counts them.

    The count, `repeated`, stands on the next line that says the same. If none comes, the last one held back is written
    with the first line of any kind after the ten seconds. Lines that differ in anything but a time, an attempt or a
    measure are different: none of those is held back.
    """

    def __init__(self, every_s: float = _REPEATS_EVERY_S, clock: Callable[[], float] = monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        """The oldest first."""

    def admit(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """The records to write now."""
        key, now = _identity_of(record), self._clock()
        window = self._windows.get(key)
        if window is not None and now - window.begun_at < self._every_s:
            window.unwritten += 1
            window.last = record
            return self._pop_expired(now)
        if window is not None:
            record.repeated = window.unwritten
            del self._windows[key]
        due = self._pop_expired(now)
        if record.levelno >= logging.WARNING:
            self._windows[key] = _Window(now)
        return [*due, record]

    def flush(self) -> list[logging.LogRecord]:
        """What is still held back, at the end."""
        held = [window for window in self._windows.values() if window.unwritten]
        self._windows.clear()
        return [_summary(window) for window in held]

    def _pop_expired(self, now: float) -> list[logging.LogRecord]:
        """What is held back of windows that have ended, which then begin anew, and of the oldest where there are too many."""
        due: list[logging.LogRecord] = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            has_ended = now - window.begun_at >= self._every_s
            if not has_ended and len(self._windows) < _REPEATS_MAX:
                break
            del self._windows[key]
            if window.unwritten:
                due.append(_summary(window))
                if has_ended:
                    self._windows[key] = _Window(now)
        return due


def _identity_of(record: logging.LogRecord) -> Hashable:
    if isinstance(record.msg, dict):
        fields = {
            name: repr(value)
            for name, value in record.msg.items()
            if name not in _NOT_COMPARED and not isinstance(value, float)
        }
        said: Hashable = tuple(sorted(fields.items()))
    else:
        error = record.exc_info[1] if record.exc_info else None
        said = (record.getMessage(), () if error is None else (type(error), *_stack(error)))
    return record.name, record.levelno, said


def _summary(window: _Window) -> logging.LogRecord:
    record = window.last
    if record is None:
        raise AssertionError("nothing was held back")
    record.repeated = window.unwritten - 1
    return record


def _add_repeated(_: Any, __: str, event: EventDict) -> EventDict:
    repeated = getattr(event["_record"], "repeated", 0)
    if repeated:
        event["repeated"] = repeated
    return event


class _Stdout(logging.Handler):
    """Writes to what stdout is at the moment, a line at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._limiter = RepeatLimiter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            due = self._limiter.admit(record)
        except Exception:  # noqa: BLE001 - such as arguments that do not fit the message
            self.handleError(record)
            return
        for one in due:
            self._write(one)

    def close(self) -> None:
        """Write what is still held back."""
        for due in self._limiter.flush():
            self._write(due)
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        try:
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return
        except Exception:  # noqa: BLE001 - a log line must never end what it reports on
            self.handleError(record)


def _named(service: str | None) -> structlog.types.Processor:
    def add(_: Any, __: str, event: EventDict) -> EventDict:
        if service:
            event["service"] = service
        return event

    return add


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """Values under secret or personal names become `[redacted]`; passwords in URLs, bearer tokens and e-mail addresses go too."""
    for key, value in event.items():
        event[key] = _clean(key, value, 0)
    return event


def _clean(key: str, value: object, depth: int) -> object:
    if _SECRET_WORDS.search(key) and not _SAFE_KEY.search(key) and key != "event" and value is not None:
        return REDACTED
    if isinstance(value, str):
        return _clean_text(value)
    if depth < 4 and isinstance(value, dict):
        return {str(name): _clean(str(name), item, depth + 1) for name, item in value.items()}
    if depth < 4 and isinstance(value, (list, tuple)):
        return [_clean("", item, depth + 1) for item in value[:100]]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _clean_text(str(value))


def _clean_text(text: str) -> str:
    text = text[
        : 2 * _TEXT_CHARS_MAX
    ]  # bounded before the patterns run; cut to size after, so that nothing half-seen passes
    if ":" in text or "@" in text or " " in text:
        text = _EMAIL.sub(REDACTED, _BEARER.sub(rf"\1 {REDACTED}", _URL_PASSWORD.sub(rf"\g<scheme>:{REDACTED}@", text)))
    return text[:_TEXT_CHARS_MAX]


def render_exception(_: Any, __: str, event: EventDict) -> EventDict:
    """An exception as its types, places and, where it cannot hold anybody's data, its message."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if error is not None:
        event["error"] = describe(error)
        event["stack"] = _stack(error)
    return event


def describe(error: BaseException) -> str:
    """An exception and its causes by type, with the message only where it is known to quote no value, and the SQLSTATE."""
    parts: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(parts) < 5:
        text = type(seen).__name__
        state = getattr(seen, "sqlstate", None)
        constraint = getattr(seen, "constraint_name", None)
        if isinstance(state, str):
            text += f" {state}" + (f" ({constraint})" if constraint else "")
        elif isinstance(seen, _MESSAGE_IS_OURS) or getattr(seen, "safe_to_log", False):
            text += f": {seen}"
        parts.append(text)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return " <- ".join(parts)[:_TEXT_CHARS_MAX]


def _stack(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]


def _short(filename: str) -> str:
    return (
        filename.rpartition("site-packages/")[2] if "site-packages/" in filename else "/".join(filename.split("/")[-3:])
    )


def _as_json(_: Any, __: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_tracing(service: str) -> None:
    """Send spans by OTLP over HTTP if OTEL_EXPORTER_OTLP_ENDPOINT is set. Without it trace ids still travel, and cost nothing."""
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - heavy, seldom needed
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", f"accord-{service}")})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def shut_tracing_down() -> None:
    """Send what is still buffered."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()


_tracer = trace.get_tracer("accord.http")
_UNSAMPLED = TraceFlags(0)


@contextmanager
def span_of_request(scope: Scope) -> Iterator[str]:
    """The span of one HTTP request, child of the caller's `traceparent`; yields the trace id.

    Without an exporter no span is recorded, but a context is made all the same, so that every log line and event can be joined.
    """
    parent = _parent(scope)
    context = trace.set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
    if not _records():
        # Ids, not secrets: as OpenTelemetry makes them, without asking the kernel twice a request.
        own = parent or SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, False, _UNSAMPLED)
        token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(own)))
        try:
            yield f"{own.trace_id:032x}"
        finally:
            otel_context.detach(token)
        return
    with _tracer.start_as_current_span(f"{scope['method']}", context=context, kind=SpanKind.SERVER) as span:
        yield f"{span.get_span_context().trace_id:032x}"
        route = getattr(scope.get("route"), "path", None)
        if route:
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.request.method", scope["method"])


def _records() -> bool:
    return hasattr(trace.get_tracer_provider(), "add_span_processor")


def _parent(scope: Scope) -> SpanContext | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return span_context(value.decode("ascii", "replace")) if len(value) <= 60 else None
    return None
