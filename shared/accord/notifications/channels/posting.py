"""POST to a URL that somebody gave: to public addresses, without redirects, within 15 seconds for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx

from accord.notifications.channels.exchange import Answer, MalformedAnswer, post
from accord.notifications.domain.model import Outcome, OutcomeKind
from accord.notifications.domain.rendering import cut
from accord.notifications.domain.schedule import parse_retry_after
from accord.outbound import AddressRefused, LookUp, NotResolved, look_up, resolve
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

    def __init__(self, *, allow_private: bool, look_up: LookUp = look_up) -> None:
        self._allow_private = allow_private
        self._look_up = look_up
        self._context = httpx.create_ssl_context(trust_env=False)

    async def post(self, url: str, headers: Mapping[str, str], content: bytes, *, is_chat: bool) -> Outcome:
        """What became of one request. To `is_chat` a refusal of its form is final: the same message would be refused again."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                addresses = await resolve(url, allow_private=self._allow_private, look_up=self._look_up)
                answer = await post(
                    addresses,
                    url,
                    {**headers, "content-type": "application/json", "user-agent": USER_AGENT},
                    content,
                    self._context,
                    body_bytes_max=EXCERPT_BYTES_MAX,
                    body_within_s=EXCERPT_WITHIN_S,
                )
        except AddressRefused:
            return Outcome(kind="failed", error="the host has an address that may not be connected to")
        except NotResolved:
            return Outcome(kind="failed", error="the host has no address")
        except TimeoutError as error:
            return Outcome(kind="failed", error=str(error) or f"no answer within {TIMEOUT_S:.0f} s")
        except MalformedAnswer as error:
            return Outcome(kind="failed", error=f"the receiver answered {error}")
        except OSError as error:
            return Outcome(
                kind="failed", error=cut(f"no answer: {str(error) or type(error).__name__}", _ERROR_CHARS_MAX)
            )
        return _make_outcome(answer, is_chat=is_chat)


def _make_outcome(answer: Answer, *, is_chat: bool) -> Outcome:
    status, (body, is_cut) = answer.status, _read_excerpt(answer)
    retry_after = parse_retry_after(answer.values_of("retry-after"), datetime.now(UTC))
    kind: OutcomeKind = "failed"
    error: str | None = f"answered {status}"
    if 200 <= status < 300:
        kind, error = "delivered", None
    elif 300 <= status < 400:
        locations = answer.values_of("location")
        where = f" to {cut(locations[0], _LOCATION_CHARS_MAX)}" if locations else ""
        error = f"answered {status}, a redirect{where}, which is not followed: correct the URL"
    elif status == 410:
        kind, error = "gone", "answered 410: nothing more is wanted here"
    elif status == 429:
        kind = "paced"
    elif is_chat and 400 <= status < 500 and status != 408:
        kind = "refused"
        error = f"answered {status}: {cut(body, _ERROR_CHARS_MAX)}"
    return Outcome(kind=kind, error=error, status=status, body=body, body_is_cut=is_cut, retry_after=retry_after)


def _read_excerpt(answer: Answer) -> tuple[str, bool]:
    """The first bytes of the body as text, and whether there is more. What is encoded is not decoded, however small it looks."""
    encoding = "".join(answer.values_of("content-encoding")).lower()
    if encoding not in ("", "identity"):
        return f"(encoded as {cut(encoding, 20)}, not read)", True
    return answer.body.decode("utf-8", "replace").replace("\x00", "\ufffd"), answer.is_cut
