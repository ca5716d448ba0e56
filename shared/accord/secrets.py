"""Encrypts secrets for the database, and decrypts them: AES-256-GCM (NIST SP 800-38D) by `cryptography`. It writes no secret anywhere and
has no default key.

An encrypted secret is bound to what it belongs to (a source, its kind, its id), so that nobody can put one in the place of another. The
first key encrypts, all of them decrypt; an encrypted secret says by which key it was made, so that keys can be changed one after the other.
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
_FINGERPRINT_BYTES = 4
_NONCE_BYTES = 12


class NoEncryptionKey(Exception):
    """There is no key to encrypt with: ACCORD_SECRETS_KEYS is not set."""


class DecryptionFailed(Exception):
    """None of the keys decrypts it: it was encrypted with a key that is gone, or for something else."""


@dataclass(frozen=True, slots=True)
class _Key:
    fingerprint: bytes
    """The first bytes of the key's hash; tells keys apart and gives nothing of them away that could be of use."""
    cipher: AESGCM = field(repr=False)


class SecretCipher:
    """Encrypts and decrypts what belongs to things of one `kind`. Without keys it holds nothing, and says so."""

    def __init__(self, keys: Sequence[bytes], kind: str = "accord.source") -> None:
        self._kind = kind
        self._keys = [_Key(sha256(key).digest()[:_FINGERPRINT_BYTES], AESGCM(key)) for key in keys]

    @property
    def can_encrypt(self) -> bool:
        return bool(self._keys)

    def encrypt(self, secret: str, *belongs_to: str) -> str:
        """The secret as text for the database. Raises NoEncryptionKey."""
        if not self._keys:
            raise NoEncryptionKey
        key, nonce = self._keys[0], os.urandom(_NONCE_BYTES)
        closed = key.cipher.encrypt(nonce, secret.encode(), self._context(belongs_to))
        return base64.urlsafe_b64encode(_VERSION + key.fingerprint + nonce + closed).decode()

    def decrypt(self, encrypted: str, *belongs_to: str) -> str:
        """What was encrypted. Raises DecryptionFailed."""
        try:
            raw = base64.urlsafe_b64decode(encrypted.encode())
        except (binascii.Error, ValueError):
            raise DecryptionFailed from None
        fingerprint, rest = raw[1 : 1 + _FINGERPRINT_BYTES], raw[1 + _FINGERPRINT_BYTES :]
        for key in self._keys if raw[:1] == _VERSION else ():
            if key.fingerprint == fingerprint:
                try:
                    return key.cipher.decrypt(
                        rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], self._context(belongs_to)
                    ).decode()
                except (InvalidTag, ValueError):
                    raise DecryptionFailed from None
        raise DecryptionFailed

    def is_current(self, encrypted: str) -> bool:
        """Whether it was encrypted with the first key, so that the others are not needed for it."""
        try:
            raw = base64.urlsafe_b64decode(encrypted.encode())
        except (binascii.Error, ValueError):
            return False
        return bool(self._keys) and raw[: 1 + _FINGERPRINT_BYTES] == _VERSION + self._keys[0].fingerprint

    def _context(self, belongs_to: Sequence[str]) -> bytes:
        """What a secret belongs to, as bytes that no two places share."""
        return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in (self._kind, *belongs_to))


def parse_keys(text: str) -> list[bytes]:
    """The keys in a setting: base64 (either alphabet) of 32 bytes each, apart by commas or white space, the one that encrypts first.

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
