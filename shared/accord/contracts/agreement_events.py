"""What every service says of its agreement: proposed, signed, activated, withdrawn. Key: the document's kind."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from accord.contracts.base import EventData, event
from accord.contracts.values import Department, Digest, Handle, Timestamp, Version, limits

AgreementKind = Literal["policy", "definition", "sla", "plan"]


class AgreementEvent(EventData, frozen=True, kw_only=True):
    """One version of one document."""

    kind: AgreementKind
    version: Version
    title: Annotated[str, *limits(max_length=500)]
    """What the document calls itself."""
    content_sha256: Digest
    """Over the RFC 8785 canonical JSON of the content."""

    @property
    def key(self) -> str:
        return self.kind


@event
class AgreementProposed(AgreementEvent, frozen=True, kw_only=True):
    """The version is up for signature and never changes again."""

    type: ClassVar[str] = "agreement.proposed.v1"
    proposed_by: Handle


@event
class AgreementSigned(AgreementEvent, frozen=True, kw_only=True):
    """One department signed exactly this content."""

    type: ClassVar[str] = "agreement.signed.v1"
    department: Department
    signed_by: Handle


@event
class AgreementActivated(AgreementEvent, frozen=True, kw_only=True):
    """Both departments have signed: the version is in force. Carries the content whole."""

    type: ClassVar[str] = "agreement.activated.v1"
    effective_from: Timestamp
    supersedes: Version | None = None
    """The version that was in force until then."""
    content: dict[str, Any]


@event
class AgreementWithdrawn(AgreementEvent, frozen=True, kw_only=True):
    """The version was taken back before it came into force."""

    type: ClassVar[str] = "agreement.withdrawn.v1"
    withdrawn_by: Handle
