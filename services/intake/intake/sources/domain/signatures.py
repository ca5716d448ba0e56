"""The keyed hashes by which tools sign what they send. Pure; always over the raw bytes, always compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal

REPLAY_WINDOW = timedelta(minutes=5)
"""How far a signed time may lie from ours, in either direction (Standard Webhooks; HubSpot v3)."""

Refusal = Literal["no-secret", "missing", "wrong", "stale", "ahead"]
"""Why verification failed: the source has no secret to verify with; there is no signature, or none of its form; it is not ours;
its time is past or before the replay window."""

Mac = Callable[[bytes], bytes]
"""From a key to the digest that a request under this key would bear."""


def hmac_sha256(*parts: bytes) -> Mac:
    """HMAC-SHA256 (RFC 2104, FIPS 180-4) of the parts, one after the other."""
    message = parts[0] if len(parts) == 1 else b"".join(parts)
    return lambda key: hmac.digest(key, message, "sha256")


def hmac_sha1(message: bytes) -> Mac:
    """HMAC-SHA1 (RFC 2104), which Segment's webhooks bear."""
    return lambda key: hmac.digest(key, message, "sha1")


def keyed_sha256(message: bytes) -> Mac:
    """SHA-256 of key and message, as HubSpot's first signatures are; no HMAC."""
    return lambda key: hashlib.sha256(key + message).digest()


def decode_hex(text: str) -> bytes | None:
    """The bytes of a digest in hexadecimal, either case; None for anything else."""
    try:
        return binascii.unhexlify(text.strip())
    except (binascii.Error, ValueError):
        return None


def decode_base64(text: str) -> bytes | None:
    """The bytes of a digest in standard base64; None for anything else."""
    try:
        return base64.b64decode(text.strip().encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None


def check_signature(offered: Iterable[bytes | None], keys: Iterable[bytes], mac: Mac) -> Refusal | None:
    """None if one of the digests offered is what one of the keys gives, else why not. No digest of a readable form: `missing`."""
    digests = [digest for digest in offered if digest]
    expected = [mac(key) for key in keys]
    if not expected:
        return "no-secret"
    if not digests:
        return "missing"
    found = False
    for digest in digests:
        for right in expected:
            found |= hmac.compare_digest(digest, right)
    return None if found else "wrong"


def check_secret(offered: str | None, secrets: Iterable[bytes]) -> Refusal | None:
    """None if the text is one of the secrets, else why not."""
    known = list(secrets)
    if not known:
        return "no-secret"
    if not offered:
        return "missing"
    found = False
    for secret in known:
        found |= hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), secret)
    return None if found else "wrong"


def check_time_window(seconds: float | None, now: datetime) -> Refusal | None:
    """None if a signed time, in seconds since 1970, lies within REPLAY_WINDOW of now, else why not."""
    if seconds is None:
        return "missing"
    apart = now.timestamp() - seconds
    if apart > REPLAY_WINDOW.total_seconds():
        return "stale"
    return "ahead" if -apart > REPLAY_WINDOW.total_seconds() else None


def parse_integer(text: str | None) -> int | None:
    """A header's number of seconds or milliseconds; None unless it is a plain decimal number."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 16):
        return None
    return int(text)
