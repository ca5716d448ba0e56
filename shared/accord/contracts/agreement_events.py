"""What every service says of its agreement: proposed, signed, activated, withdrawn. Key: the document's kind."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from accord.contracts.base import EventData, event
from accord.contracts.values import Department, Handle, Timestamp, Version

AgreementKind = Literal["policy", "definition", "sla", "plan"]


class AgreementEvent(EventData):
    """One version of one document."""

    kind: AgreementKind
    version: Version
    title: str = Field(max_length=500)
    """What the document calls itself."""
    content_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Over the RFC 8785 canonical JSON of the content."""

    @property
    def key(self) -> str:
        return self.kind


@event
class AgreementProposed(AgreementEvent):
    """The version is up for signature and never changes again."""

    type: ClassVar[str] = "agreement.proposed.v1"
    proposed_by: Handle


@event
class AgreementSigned(AgreementEvent):
    """One department signed exactly this content."""

    type: ClassVar[str] = "agreement.signed.v1"
    department: Department
    signed_by: Handle


@event
class AgreementActivated(AgreementEvent):
    """Both departments have signed: the version is in force. Carries the content whole."""

    type: ClassVar[str] = "agreement.activated.v1"
    effective_from: Timestamp
    supersedes: Version | None = None
    """The version that was in force until then."""
    content: dict[str, Any]


@event
class AgreementWithdrawn(AgreementEvent):
    """The version was taken back before it came into force."""

    type: ClassVar[str] = "agreement.withdrawn.v1"
    withdrawn_by: Handle
