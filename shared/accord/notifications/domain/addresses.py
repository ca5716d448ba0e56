"""What an address of each channel looks like. Whether a host may be connected to is not decided here."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from accord.notifications.domain.model import Channel

ADDRESS_CHARS_MAX = 2_000
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{3,253}\Z)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
_URL = re.compile(r"https?://[!-~]+", re.ASCII)


def address_error(channel: Channel, address: str) -> str | None:
    """What is wrong with an address, None if it can be used."""
    if channel == "email":
        return None if _EMAIL.fullmatch(address) else "must be an e-mail address, such as ann@example.com"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "must be a URL with a host and a valid port"
    if not _URL.fullmatch(address) or not parts.hostname or port == 0:
        return "must be a URL with a host and a valid port"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "must not hold a user name, a password or a fragment"
    return None


def show_address(channel: Channel, address: str) -> str:
    """The address as it may be shown: the URL of a chat lets everybody post who knows it."""
    if channel in ("webhook", "email"):
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}/…"
