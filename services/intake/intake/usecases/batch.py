"""What the two group-committed use cases share: keys that make a request happen once, and a bounded retry of what may be retried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson

from accord.db import Recording
from accord.http.idempotency import Answer, Fresh, Replay, Ticket, Verdict, claim, forget, problem_of_verdict, store
from accord.http.problems import MEDIA_TYPE, Problem

RECORDED = "accord-recorded"
"""Header that says `no` where a refused request left nothing behind."""
_FRESH = Fresh()


async def claimed(recording: Recording, tickets: Sequence[Ticket | None]) -> list[Verdict]:
    """The verdict on each request's key; a request without a key is fresh."""
    given = [ticket for ticket in tickets if ticket is not None]
    verdicts = iter(await claim(recording.conn, given, recording.now)) if given else iter(())
    return [_FRESH if ticket is None else next(verdicts) for ticket in tickets]


async def answered(
    recording: Recording, tickets: Sequence[Ticket | None], verdicts: Sequence[Verdict], fresh: Sequence[Answer]
) -> list[Answer | Exception]:
    """One answer for each request: the saved one, the problem of its key, or the next of `fresh`.

    A fresh answer is saved under its key, unless nothing was recorded: then the same request may succeed later.
    """
    answers: list[Answer | Exception] = []
    saved: list[tuple[Ticket, Answer]] = []
    freed: list[Ticket] = []
    remaining = iter(fresh)
    for ticket, verdict in zip(tickets, verdicts, strict=True):
        if isinstance(verdict, Fresh):
            answer = next(remaining)
            answers.append(answer)
            if answer.headers.get(RECORDED) == "no":
                answers[-1] = replace(answer, headers={k: v for k, v in answer.headers.items() if k != RECORDED})
                freed += [ticket] if ticket is not None else []
            elif ticket is not None:
                saved.append((ticket, answer))
        elif isinstance(verdict, Replay):
            answers.append(verdict.answer)
        else:
            answers.append(problem_of_verdict(verdict))
    await store(recording.conn, saved)
    await forget(recording.conn, freed)
    return answers


def refused(problem: Problem) -> Answer:
    """The answer to one request of a batch that left no trace."""
    return Answer(problem.status, orjson.dumps(problem.document()), {"content-type": MEDIA_TYPE, RECORDED: "no"})
