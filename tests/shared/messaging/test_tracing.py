"""A trace goes on across Kafka: the outbox keeps the context, the consumer links its batch to it."""

from uuid import uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text

from accord import tracing
from accord.messaging import consumer as consumer_module


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(consumer_module, "tracer", provider.get_tracer("test"))
    exporter.tracer = provider.get_tracer("test")
    return exporter


async def test_the_context_of_a_request_reaches_the_consumer_and_what_it_publishes(
    database, other_database, cluster, new_activity, run_workers, eventually, spans, new_relay, new_consumer
):
    with spans.tracer.start_as_current_span("POST /v1/activities") as request:
        async with database.write_transaction() as unit_of_work:
            unit_of_work.publish(new_activity(unit_of_work))
    asked = request.get_span_context()

    async def answer(unit_of_work, received):
        unit_of_work.publish(*(new_activity(unit_of_work) for _ in received))

    consumer = new_consumer(other_database, cluster, group="test", topics=["intake-events"], handle=answer)

    async def answered():
        async with other_database.read_transaction() as conn:
            return (await conn.execute(text("SELECT traceparent FROM outbox"))).scalars().all()

    async with run_workers(new_relay(database, cluster, "intake"), consumer):
        [traceparent] = await eventually(answered)
    batch = next(span for span in spans.get_finished_spans() if span.links)
    assert batch.kind is trace.SpanKind.CONSUMER
    assert [link.context.span_id for link in batch.links] == [asked.span_id]
    assert tracing.span_context(traceparent).span_id == batch.context.span_id


async def test_without_a_trace_nothing_is_carried(database, new_activity):
    async with database.write_transaction() as unit_of_work:
        unit_of_work.publish(new_activity(unit_of_work, uuid4()))
    async with database.read_transaction() as conn:
        assert (await conn.execute(text("SELECT traceparent FROM outbox"))).scalar_one() is None


@pytest.mark.parametrize("unreadable", ["", "00", "00-x-y-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "a-b-c"])
def test_an_unreadable_context_is_no_link(unreadable):
    assert tracing.links([unreadable, None]) == []


def test_links_are_distinct_and_bounded():
    contexts = [f"00-{n + 1:032x}-{n + 1:016x}-01" for n in range(300)]
    assert len(tracing.links(contexts * 2)) == 128
