"""The one way out of intake: GET of a JSON document from a tool's API. It follows no redirect, uses no proxy, bounds time and size,
verifies TLS, and connects only to the address that it has looked at: public ones, unless private ones are allowed by setting.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import httpx
from pydantic import JsonValue

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

_CONNECT_TIMEOUT_S = 5.0
_RETRY_AFTER_MAX_S = 3_600.0
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA assigns from; what lies outside is loopback, private, reserved or multicast."""
_SPECIAL_IPV6 = [
    ipaddress.IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")
]
"""IANA IPv6 Special-Purpose Address Registry of 2024-10-22, as far as it lies in 2000::/3 and stands for no address of IPv4."""
_SPECIAL_IPV4 = [
    ipaddress.IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
"""IANA IPv4 Special-Purpose Address Registry of 2024, and multicast."""
_STATUS: Mapping[int, FetchFailure] = {
    401: "unauthorised",
    403: "unauthorised",
    404: "not-found",
    410: "not-found",
    429: "too-many-requests",
}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._resolve(host, port)
        if parts.scheme != "https" and not (self._allow_private and not is_public(address)):
            raise FetchError("address-refused")
        # The request goes to the address that was looked at, so no second look-up can lead it elsewhere; the certificate is
        # verified for the name all the same.
        pinned = httpx.URL(url).copy_with(host=str(address), port=port)
        sent = {**headers, "host": parts.netloc, "accept": "application/json", "accept-encoding": "identity"}
        request = self._http_client().build_request("GET", pinned, headers=sent, extensions={"sni_hostname": host})
        request.extensions["timeout"] = {
            "connect": min(_CONNECT_TIMEOUT_S, self._timeout_s),
            **dict.fromkeys(("read", "write", "pool"), self._timeout_s),
        }
        response = await self._http_client().send(request, stream=True, follow_redirects=False)
        try:
            self._check(response)
            return await self._read(response)
        finally:
            await response.aclose()

    def _http_client(self) -> httpx.AsyncClient:
        if self._client is None:
            # No connection is kept: it would be found again by its address, whatever name it was verified for.
            limits = httpx.Limits(max_keepalive_connections=0, max_connections=50)
            self._client = httpx.AsyncClient(trust_env=False, limits=limits, follow_redirects=False)
        return self._client

    async def _resolve(self, host: str, port: int) -> Address:
        """An address of the host that may be connected to. All of them are looked at: one private among them refuses the host."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise FetchError("not-resolved") from None
        addresses = [ipaddress.ip_address(item[4][0]) for item in found]
        if not addresses:
            raise FetchError("not-resolved")
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise FetchError("address-refused")
        return addresses[0]

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


def is_public(address: Address) -> bool:
    """Whether the address is one of the public Internet, also where an IPv6 address stands for one of IPv4. All of IANA's special-purpose
    blocks are none, also the few that are globally reachable: no tool's API is there."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in block for block in _SPECIAL_IPV4)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return is_public(inner)
    return address in _GLOBAL_UNICAST and not any(address in block for block in _SPECIAL_IPV6)


def _retry_after_s(text: str | None) -> float | None:
    """Retry-After in seconds, bounded; a date is not read."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    return min(float(text[:10]), _RETRY_AFTER_MAX_S)
