"""Seals the secrets of sources for the database, and opens them again: AES-256-GCM (NIST SP 800-38D) by `cryptography`. It writes no secret
anywhere and has no default key.

A sealed secret is bound to what it belongs to (source, use, id), so that nobody can put one in the place of another. The first key seals,
all of them open; a sealed secret says by which key it was made, so that keys can be changed one after the other.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
KEYS_MAX = 10
_VERSION = b"\x01"
_MARK_BYTES = 4
_NONCE_BYTES = 12


class NoKeys(Exception):
    """There is no key to seal with: ACCORD_SECRETS_KEYS is not set."""


class NotOpened(Exception):
    """None of the keys opens it: it was sealed with a key that is gone, or for something else."""


@dataclass(frozen=True, slots=True)
class _Key:
    mark: bytes
    """The first bytes of the key's hash; tells keys apart and gives nothing of them away that could be of use."""
    cipher: AESGCM = field(repr=False)


class Vault:
    """Seals and opens. Without keys it holds nothing, and says so."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = [_Key(sha256(key).digest()[:_MARK_BYTES], AESGCM(key)) for key in keys]

    @property
    def can_seal(self) -> bool:
        return bool(self._keys)

    def seal(self, secret: str, *belongs_to: str) -> str:
        """The secret as text for the database. Raises NoKeys."""
        if not self._keys:
            raise NoKeys
        key, nonce = self._keys[0], os.urandom(_NONCE_BYTES)
        closed = key.cipher.encrypt(nonce, secret.encode(), _context(belongs_to))
        return base64.urlsafe_b64encode(_VERSION + key.mark + nonce + closed).decode()

    def open(self, sealed: str, *belongs_to: str) -> str:
        """What was sealed. Raises NotOpened."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode())
        except (binascii.Error, ValueError):
            raise NotOpened from None
        mark, rest = raw[1 : 1 + _MARK_BYTES], raw[1 + _MARK_BYTES :]
        for key in self._keys if raw[:1] == _VERSION else ():
            if key.mark == mark:
                try:
                    return key.cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _context(belongs_to)).decode()
                except (InvalidTag, ValueError):
                    raise NotOpened from None
        raise NotOpened

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the first key, so that the others are not needed for it."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode())
        except (binascii.Error, ValueError):
            return False
        return bool(self._keys) and raw[: 1 + _MARK_BYTES] == _VERSION + self._keys[0].mark


def _context(belongs_to: Sequence[str]) -> bytes:
    """What a secret belongs to, as bytes that no two places share."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in ("accord.source", *belongs_to))


def keys_of(text: str) -> list[bytes]:
    """The keys in a setting: base64 (either alphabet) of 32 bytes each, apart by commas or white space, the sealing one first.

    Raises ValueError, with no word of what stood there.
    """
    words = text.replace(",", " ").split()
    if len(words) > KEYS_MAX:
        raise ValueError(f"there may be {KEYS_MAX} keys")
    keys: list[bytes] = []
    for place, word in enumerate(words, 1):
        try:
            key = base64.b64decode(word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {place} is not {KEY_BYTES} bytes in base64")
        keys.append(key)
    return keys
