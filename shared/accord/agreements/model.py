"""The life of one version of an agreement, as pure functions: draft → proposed → active → superseded, or withdrawn.

It reads no clock and no database; every function takes the version as it is and gives the version as it becomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from accord.contracts.values import Department

Status = Literal["draft", "proposed", "active", "superseded", "withdrawn"]
DEPARTMENTS: frozenset[Department] = frozenset({"marketing", "sales"})


class AgreementError(Exception):
    """What may not be done with a version in its present state. `code` names the kind of error and is stable."""

    code: ClassVar[str] = "agreement-conflict"
    safe_to_log: ClassVar[bool] = True


class NotADraft(AgreementError):
    code = "not-a-draft"


class NotProposed(AgreementError):
    code = "not-proposed"


class NotWithdrawable(AgreementError):
    code = "not-withdrawable"


class EffectiveInThePast(AgreementError):
    code = "effective-in-the-past"


class ContentDiffers(AgreementError):
    code = "content-differs"


class DepartmentHasSigned(AgreementError):
    code = "department-has-signed"


class KeyHasSigned(AgreementError):
    """One key can't sign for both departments."""

    code = "key-has-signed"


class NotDue(AgreementError):
    code = "not-due"


class Signature(Struct, frozen=True):
    """One department's signature under exactly this content. `signed_by` is the key's name."""

    department: Department
    signed_by: str
    signed_at: datetime
    content_sha256: str


class Version(Struct, frozen=True):
    """One version. `revision` counts its changes and makes its ETag; `effective_at` is the wish of the proposal, None for at once;
    `active_from` to `superseded_at` is when it was in force."""

    version: int
    status: Status
    content_sha256: str
    revision: int = 1
    effective_at: datetime | None = None
    proposed_by: str | None = None
    proposed_at: datetime | None = None
    signatures: Mapping[Department, Signature] = field(default_factory=dict)
    active_from: datetime | None = None
    superseded_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_at: datetime | None = None

    @property
    def fully_signed(self) -> bool:
        return self.signatures.keys() == DEPARTMENTS


def edit(version: Version, content_sha256: str) -> Version:
    """A draft with other content. Raises NotADraft."""
    if version.status != "draft":
        raise NotADraft("Only a draft can be edited.")
    return replace(version, content_sha256=content_sha256, revision=version.revision + 1)


def propose(version: Version, by: str, now: datetime, effective_at: datetime | None = None) -> Version:
    """Put a draft up for signature; from here its content never changes. Raises NotADraft, EffectiveInThePast."""
    if version.status != "draft":
        raise NotADraft("Only a draft can be proposed.")
    if effective_at is not None and effective_at < now:
        raise EffectiveInThePast("An agreement cannot take effect in the past.")
    return replace(
        version,
        status="proposed",
        proposed_by=by,
        proposed_at=now,
        effective_at=effective_at,
        revision=version.revision + 1,
    )


def sign(version: Version, department: Department, by: str, content_sha256: str, now: datetime) -> Version:
    """Add a department's signature. Raises NotProposed, ContentDiffers, DepartmentHasSigned, KeyHasSigned."""
    if version.status != "proposed":
        raise NotProposed("Only a proposed version can be signed.")
    if content_sha256 != version.content_sha256:
        raise ContentDiffers("The signed SHA-256 is not that of this version's content.")
    if any(signature.signed_by == by for signature in version.signatures.values()):
        raise KeyHasSigned("This key has signed this version already; one key cannot sign for both departments.")
    if department in version.signatures:
        raise DepartmentHasSigned(f"The department {department} has signed this version already.")
    signature = Signature(department, by, now, content_sha256)
    return replace(version, signatures={**version.signatures, department: signature}, revision=version.revision + 1)


def is_due(version: Version, now: datetime) -> bool:
    """Whether both have signed and the agreed moment has come."""
    return (
        version.status == "proposed"
        and version.fully_signed
        and (version.effective_at is None or version.effective_at <= now)
    )


def activate(version: Version, current: Version | None, now: datetime) -> tuple[Version, Version | None]:
    """The version in force, and the one it supersedes as it becomes. Raises NotDue.

    In force from `now`, never before the current one was: the intervals of a kind's versions follow each other without overlap.
    """
    if not is_due(version, now):
        raise NotDue("It is not signed by both departments, or its time has not come.")
    start = now if current is None or current.active_from is None else max(now, current.active_from)
    active = replace(version, status="active", active_from=start, revision=version.revision + 1)
    if current is None:
        return active, None
    return active, replace(current, status="superseded", superseded_at=start, revision=current.revision + 1)


def withdraw(version: Version, by: str, now: datetime) -> Version:
    """Take back a version that is not in force yet. Raises NotWithdrawable."""
    if version.status not in ("draft", "proposed"):
        raise NotWithdrawable(
            "Only a draft or a proposed version can be withdrawn; a version in force is superseded by a new one."
        )
    return replace(version, status="withdrawn", withdrawn_by=by, withdrawn_at=now, revision=version.revision + 1)
