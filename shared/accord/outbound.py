"""The way out to servers that others name: one look-up, addresses that may be connected to, and a request that goes to the very address
that was looked at. It follows no redirect and uses no proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import urlsplit

import httpx

CONNECT_TIMEOUT_S = 5.0
ADDRESSES_TRIED_MAX = 3
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

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LookUp = Callable[[str, int], Awaitable[Sequence[Address]]]
"""All addresses of a host. Raises OSError."""


class AddressRefused(Exception):
    """The host has an address that may not be connected to, or it is asked without TLS."""


class NotResolved(Exception):
    """The host has no address."""


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


async def look_up(host: str, port: int) -> list[Address]:
    """All addresses of a host, by the system's resolver. Raises OSError or UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(item[4][0]) for item in found))


async def resolve(url: str, *, allow_private: bool, look_up: LookUp = look_up) -> list[Address]:
    """The addresses that a request to this URL may go to. All of them are looked at: one private among them refuses the host.

    Raises AddressRefused or NotResolved.
    """
    parts = urlsplit(url)
    try:
        addresses = list(await look_up(host_of(url), port_of(url)))
    except (OSError, UnicodeError, ValueError):
        raise NotResolved from None
    if not addresses:
        raise NotResolved
    if not allow_private and not all(is_public(address) for address in addresses):
        raise AddressRefused
    if parts.scheme != "https" and any(is_public(address) for address in addresses):
        raise AddressRefused
    return addresses


def make_client(connections_max: int) -> httpx.AsyncClient:
    """A client for `send_to`. It keeps no connection: that would be found again by its address, whatever name it was verified for."""
    limits = httpx.Limits(max_keepalive_connections=0, max_connections=connections_max)
    return httpx.AsyncClient(trust_env=False, limits=limits, follow_redirects=False)


async def send_to(
    client: httpx.AsyncClient,
    addresses: Sequence[Address],
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    content: bytes | None = None,
    timeout_s: float,
) -> httpx.Response:
    """The response, its body unread, of a request that goes to one of these addresses: to the next only where none could be connected to.

    No second look-up can lead it elsewhere, and the certificate is verified for the name all the same. Raises what httpx raises.
    """
    parts, port = urlsplit(url), port_of(url)
    extensions = {
        "sni_hostname": host_of(url),
        "timeout": {
            "connect": min(CONNECT_TIMEOUT_S, timeout_s),
            **dict.fromkeys(("read", "write", "pool"), timeout_s),
        },
    }
    sent = {**headers, "host": parts.netloc, "accept-encoding": "identity"}
    candidates = addresses[:ADDRESSES_TRIED_MAX]
    for address in candidates:
        pinned = httpx.URL(url).copy_with(host=str(address), port=port)
        request = client.build_request(method, pinned, headers=sent, content=content, extensions=extensions)
        try:
            return await client.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address is candidates[-1]:
                raise
    raise NotResolved


def host_of(url: str) -> str:
    """The host without the dot at its end, which is no part of the name in a certificate."""
    return (urlsplit(url).hostname or "").rstrip(".")


def port_of(url: str) -> int:
    """The port, 443 or 80 where the URL names none."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
