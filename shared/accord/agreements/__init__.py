"""The one mechanism of the four signed documents. It knows how an agreement comes into force and nothing of its content."""

from accord.agreements.cache import ActiveCache, ActiveVersion, CurrentValue
from accord.agreements.collectors import agreement_collector
from accord.agreements.model import AgreementError
from accord.agreements.paper_links import PaperLinks
from accord.agreements.routes import agreement_router
from accord.agreements.store import ActiveAgreement, AgreementStore, Finding, Kind, Section, agreement_worker

__all__ = [
    "ActiveAgreement",
    "ActiveCache",
    "ActiveVersion",
    "AgreementError",
    "AgreementStore",
    "CurrentValue",
    "Finding",
    "Kind",
    "PaperLinks",
    "Section",
    "agreement_collector",
    "agreement_router",
    "agreement_worker",
]
