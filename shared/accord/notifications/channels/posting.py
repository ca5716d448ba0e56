"""POST to a URL that somebody gave: to public addresses, without redirects, within 15 seconds for all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

import httpx

from accord.notifications.domain.model import Outcome, OutcomeKind
from accord.notifications.domain.rendering import cut
from accord.notifications.domain.schedule import parse_retry_after
from accord.outbound import AddressRefused, LookUp, NotResolved, look_up, make_client, resolve, send_to
from accord.version import VERSION

TIMEOUT_S = 15.0
EXCERPT_BYTES_MAX = 1_024
"""Of an answer so much is kept. The status decides, so no more of the body is awaited than comes within a moment."""
EXCERPT_WITHIN_S = 2.0
USER_AGENT = f"Accord/{VERSION}"
_LOCATION_CHARS_MAX = 500
_ERROR_CHARS_MAX = 300


class Poster:
    """Posts. A connection serves one request."""

    def __init__(self, *, allow_private: bool, connections_max: int, look_up: LookUp = look_up) -> None:
        self._allow_private = allow_private
        self._look_up = look_up
        self._client = make_client(connections_max)

    async def post(self, url: str, headers: Mapping[str, str], content: bytes, *, is_chat: bool) -> Outcome:
        """What became of one request. To `is_chat` a refusal of its form is final: the same message would be refused again."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                addresses = await resolve(url, allow_private=self._allow_private, look_up=self._look_up)
                sent = {**headers, "content-type": "application/json", "user-agent": USER_AGENT}
                response = await send_to(
                    self._client, addresses, "POST", url, sent, content=content, timeout_s=TIMEOUT_S
                )
        except AddressRefused:
            return Outcome(kind="failed", error="the host has an address that may not be connected to")
        except NotResolved:
            return Outcome(kind="failed", error="the host has no address")
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(kind="failed", error=f"no answer within {TIMEOUT_S:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(
                kind="failed", error=cut(f"no answer: {str(error) or type(error).__name__}", _ERROR_CHARS_MAX)
            )
        try:
            body, is_cut = await _read_excerpt(response, TIMEOUT_S - (time.monotonic() - began))
        finally:
            with suppress(httpx.HTTPError, OSError):
                await response.aclose()
        return _make_outcome(response, body, is_cut=is_cut, is_chat=is_chat)

    async def close(self) -> None:
        await self._client.aclose()


async def _read_excerpt(response: httpx.Response, within_s: float) -> tuple[str, bool]:
    """The first bytes of the body, as they came over the wire, and whether there is more."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        return f"(encoded as {cut(encoding, 20)}, not read)", True
    found = bytearray()
    is_cut = True
    with suppress(TimeoutError, httpx.HTTPError, OSError):
        async with asyncio.timeout(max(0.0, min(within_s, EXCERPT_WITHIN_S))):
            async for piece in response.aiter_raw():
                found += piece
                if len(found) > EXCERPT_BYTES_MAX:
                    break
            else:
                is_cut = False
    text = bytes(found[:EXCERPT_BYTES_MAX]).decode("utf-8", "replace").replace("\x00", "\ufffd")
    return text, is_cut


def _make_outcome(response: httpx.Response, body: str, *, is_cut: bool, is_chat: bool) -> Outcome:
    status = response.status_code
    retry_after = parse_retry_after(response.headers.get_list("retry-after"), datetime.now(UTC))
    kind: OutcomeKind = "failed"
    error: str | None = f"answered {status}"
    if 200 <= status < 300:
        kind, error = "delivered", None
    elif 300 <= status < 400:
        location = response.headers.get("location")
        where = f" to {cut(location, _LOCATION_CHARS_MAX)}" if location else ""
        error = f"answered {status}, a redirect{where}, which is not followed: correct the URL"
    elif status == 410:
        kind, error = "gone", "answered 410: nothing more is wanted here"
    elif status == 429:
        kind = "paced"
    elif is_chat and 400 <= status < 500 and status != 408:
        kind = "refused"
        error = f"answered {status}: {cut(body, _ERROR_CHARS_MAX)}"
    return Outcome(kind=kind, error=error, status=status, body=body, body_is_cut=is_cut, retry_after=retry_after)
