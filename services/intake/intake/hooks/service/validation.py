"""Documents of submissions as tools send them: what cannot be read is left out and named, so that nobody is lost for one field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from intake.hooks.domain.validation import SUBMISSIONS, Validated, validate_document
from intake.leads.domain.submission import Submission
from intake.leads.service.normalization import parse_email
from intake.leads.service.submissions import NO_ADDRESS, parse_submission_phone


def validate_submission(document: Mapping[str, JsonValue], now: datetime) -> Validated[Submission]:
    """The document as a submission. An address that is none is left out where an id or a number stands beside it, and the policy judges."""
    validated = validate_document(SUBMISSIONS, document, now)
    submission = validated.value
    if submission is None or not submission.email or parse_email(submission.email).address is not None:
        return validated
    phone = parse_submission_phone(submission)
    if submission.external_id is None and (phone is None or phone.e164 is None):
        return validated
    return Validated(submission.model_copy(update={"email": None}), (*validated.left_out, NO_ADDRESS))
