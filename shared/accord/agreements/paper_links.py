"""Links by which somebody without a key reads one version on paper, for some days. Nothing of them is stored: what a link allows is
encrypted in it, and it ends early with the API key of whoever made it (ADR 117)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from accord.secrets import DecryptionFailed, NoEncryptionKey, SecretCipher

DAYS_MAX = 30
TOKEN_CHARS_MAX = 1_000


class InvalidLink(Exception):
    """It was not made here, not for this version, or has ended."""


class LinkContent(Struct, frozen=True):
    """What one link allows."""

    kind: str
    version: int
    made_by: str
    """Name of the API key."""
    until: datetime


class PaperLinks:
    """Makes links and reads them. Without encryption keys it makes none."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._cipher = SecretCipher(keys, "accord.paper-link")

    def make(self, kind: str, version: int, made_by: str, now: datetime, days: int) -> tuple[str, datetime]:
        """The token, and when it ends. Raises NoEncryptionKey."""
        until = now + timedelta(days=days)
        return self._cipher.encrypt(msgspec.json.encode(LinkContent(kind, version, made_by, until)).decode()), until

    def read(self, token: str, kind: str, version: str, now: datetime) -> str:
        """The name of the key that made it; `version` as it stands in the address. Raises InvalidLink."""
        try:
            content = msgspec.json.decode(self._cipher.decrypt(token), type=LinkContent)
        except (DecryptionFailed, msgspec.DecodeError):
            raise InvalidLink from None
        if (content.kind, str(content.version)) != (kind, version) or content.until <= now:
            raise InvalidLink
        return content.made_by


__all__ = ["DAYS_MAX", "TOKEN_CHARS_MAX", "InvalidLink", "NoEncryptionKey", "PaperLinks"]
