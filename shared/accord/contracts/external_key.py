"""How the id that another system gave a lead is named outside intake: as a digest, so that the raw id (it may be an address) stays there."""

from __future__ import annotations

import hashlib


def external_key(source: str, external_id: str) -> str:
    """SHA-256 (hex) of source and id, separated by a character that neither may hold."""
    return hashlib.sha256(f"{source}\x1f{external_id}".encode()).hexdigest()
