"""The one way out of intake: GET of a JSON document from a tool's API. It bounds time and size, and goes to addresses that may be connected
to alone (see accord.outbound).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

import httpx
from pydantic import JsonValue

from accord.outbound import AddressRefused, NotResolved, make_client, resolve, send_to
from intake.hooks.service.body import parse_json

FetchFailure = Literal[
    "address-refused",
    "not-resolved",
    "no-connection",
    "timed-out",
    "too-large",
    "no-json",
    "redirected",
    "unauthorised",
    "not-found",
    "too-many-requests",
    "refused",
    "server-error",
]
"""Why there is no answer; words that hold nothing of the request or the answer."""

_CONNECTIONS_MAX = 50
_RETRY_AFTER_MAX_S = 3_600.0
_STATUS: Mapping[int, FetchFailure] = {
    401: "unauthorised",
    403: "unauthorised",
    404: "not-found",
    410: "not-found",
    429: "too-many-requests",
}


class FetchError(Exception):
    """The tool gave no answer that could be used. `retry_after_s`: the time for which it asked to be left alone."""

    def __init__(self, failure: FetchFailure, retry_after_s: float | None = None) -> None:
        super().__init__(failure)
        self.failure: FetchFailure = failure
        self.retry_after_s = retry_after_s


class OutboundClient:
    """Asks tools. `timeout_s` is for a whole exchange, `bytes_max` for the answer's body."""

    def __init__(self, *, timeout_s: float, bytes_max: int, allow_private: bool = False) -> None:
        self._timeout_s = timeout_s
        self._bytes_max = bytes_max
        self._allow_private = allow_private
        self._client: httpx.AsyncClient | None = None

    async def get_json(self, url: str, headers: Mapping[str, str]) -> JsonValue:
        """The JSON document at a URL. Raises FetchError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._get(url, headers)
        except TimeoutError:
            raise FetchError("timed-out") from None
        except (httpx.TimeoutException, httpx.ConnectTimeout):
            raise FetchError("timed-out") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            # Their messages can quote the URL, and nobody needs them to know that it did not work.
            raise FetchError("no-connection") from None

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _get(self, url: str, headers: Mapping[str, str]) -> JsonValue:
        try:
            addresses = await resolve(url, allow_private=self._allow_private)
        except AddressRefused:
            raise FetchError("address-refused") from None
        except NotResolved:
            raise FetchError("not-resolved") from None
        if self._client is None:
            self._client = make_client(_CONNECTIONS_MAX)
        sent = {**headers, "accept": "application/json"}
        response = await send_to(self._client, addresses, "GET", url, sent, timeout_s=self._timeout_s)
        try:
            self._check(response)
            return await self._read(response)
        finally:
            await response.aclose()

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchError("no-json")
            return
        if 300 <= status < 400:
            raise FetchError("redirected")
        failure = _STATUS.get(status, "server-error" if status >= 500 else "refused")
        raise FetchError(failure, _retry_after_s(response.headers.get("retry-after")))

    async def _read(self, response: httpx.Response) -> JsonValue:
        declared = response.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > self._bytes_max:
            raise FetchError("too-large")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > self._bytes_max:
                raise FetchError("too-large")
        try:
            return parse_json(bytes(body))[0]
        except ValueError:
            raise FetchError("no-json") from None


def _retry_after_s(text: str | None) -> float | None:
    """Retry-After in seconds, bounded; a date is not read."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    return min(float(text[:10]), _RETRY_AFTER_MAX_S)
