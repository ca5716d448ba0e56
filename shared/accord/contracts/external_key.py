"""How the id that another system gave a lead is named outside intake: as a digest.

The raw id may be an address, so it stays in intake. See ADR 2.
"""

from __future__ import annotations

import hashlib

from accord.contracts.values import normalize_text


def external_key(source: str, external_id: str) -> str:
    """SHA-256 (hex, 64 digits) of source and id, each as `normalize_text` has it, separated by a character that no source holds (see
    SourceName)."""
    return hashlib.sha256(f"{normalize_text(source)}\x1f{normalize_text(external_id)}".encode()).hexdigest()
