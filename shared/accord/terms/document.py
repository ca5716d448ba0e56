"""The base of every part of a document that people write. It reads no document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class DocumentPart(BaseModel):
    """Immutable; an unknown field is an error. A string below a field describes it in schemas."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
