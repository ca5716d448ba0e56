"""The answers to submissions and activities, one or many: as they are sent, and as they are saved to be given again."""

from __future__ import annotations

import orjson

from accord.http.idempotency import Answer
from accord.http.problems import MEDIA_TYPE, Problem
from accord.terms.findings import Finding
from intake.capture.service.capture import CaptureResult
from intake.capture.service.record import ActivityResult
from intake.leads.api import encode_findings, encode_quality
from intake.leads.service.merge_group import RecordNotFound
from intake.leads.service.submissions import invalid_submission
from intake.policy.api import rejection

_STATUS = {"created": 201, "updated": 200, "merged": 200}


def encode_capture(result: CaptureResult) -> Answer:
    """The answer to one submission."""
    if isinstance(result, Finding):
        return _encode_problem(invalid_submission(result))
    quality = result.quality
    if result.outcome is None:
        problem = rejection("Rejected by the data policy", quality, quality.rejection_reason, result.submission_id)
        document = orjson.dumps(problem.document())
        return Answer(422, document, {"content-type": MEDIA_TYPE}, subject=result.submission_id)
    body = {
        "submission_id": result.submission_id,
        "lead_id": result.lead_id,
        "outcome": result.outcome,
        "verdict": quality.verdict,
        "quality": encode_quality(quality),
        "left_out": encode_findings(result.left_out),
    }
    return Answer(_STATUS[result.outcome], orjson.dumps(body, default=str), subject=result.lead_id)


def encode_activity(result: ActivityResult) -> Answer:
    """The answer to one activity."""
    if isinstance(result, Finding):
        return _encode_problem(invalid_submission(result))
    if isinstance(result, RecordNotFound):
        return _encode_problem(result)
    body = {
        "activity_id": result.activity_id,
        "lead_id": result.lead_id,
        "left_out": encode_findings(result.left_out),
    }
    return Answer(202, orjson.dumps(body, default=str), subject=result.lead_id)


def mark_replayed(answer: Answer) -> Answer:
    """A saved answer, as it is given again: the outcome says so, and nothing was created this time."""
    if not answer.replayed or answer.status not in (200, 201, 202):
        return answer
    body = orjson.loads(answer.body)
    body["outcome"] = "replayed"
    return answer._replace(status=200, body=orjson.dumps(body, default=str))


def _encode_problem(problem: Problem) -> Answer:
    """The answer to one request that left no trace."""
    return Answer(problem.status, orjson.dumps(problem.document()), {"content-type": MEDIA_TYPE}, is_saved=False)
