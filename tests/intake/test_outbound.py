"""The one way out: bounded in time and size, to public addresses unless private ones are allowed, over verified TLS, without redirects."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.intake.toolserver import Reply, ToolServer, json_reply, tool_server

from accord.outbound import is_public
from intake.hooks.service.outbound import FetchError, OutboundClient


@pytest.fixture
def tool() -> Iterator[ToolServer]:
    with tool_server() as server:
        yield server


@pytest.fixture
async def outbound() -> AsyncIterator[OutboundClient]:
    one = OutboundClient(timeout_s=5.0, bytes_max=10_000, allow_private=True)
    yield one
    await one.close()


async def fetch_failure(outbound: OutboundClient, url: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await outbound.get_json(url, {"authorization": "Bearer t"})
    return caught.value


async def test_a_document_is_fetched_with_the_headers_given(outbound: OutboundClient, tool: ToolServer) -> None:
    tool.answer("/record", json_reply({"email": "ada@initech.example"}))

    found = await outbound.get_json(
        f"{tool.url}/record?properties=a,b", {"authorization": "Bearer t", "x-version": "2"}
    )

    assert found == {"email": "ada@initech.example"}
    [(target, headers)] = tool.asked
    assert target == "/record?properties=a,b"
    assert (headers["authorization"], headers["x-version"]) == ("Bearer t", "2")
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == tool.url.removeprefix("http://")


async def test_a_name_is_looked_up_once_and_stays_the_host(outbound: OutboundClient, tool: ToolServer) -> None:
    tool.answer("/r", json_reply(1))
    by_name = tool.url.replace("127.0.0.1", "localhost")

    assert await outbound.get_json(f"{by_name}/r", {}) == 1
    assert tool.asked[0][1]["host"] == by_name.removeprefix("http://")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "0", "2130706433"],
)
async def test_private_addresses_are_refused_unless_allowed(tool: ToolServer, host: str) -> None:
    outbound = OutboundClient(timeout_s=5.0, bytes_max=1_000)
    tool.answer("/r", json_reply(1))
    port = tool.url.rpartition(":")[2]
    for scheme in ("http", "https"):
        assert (await fetch_failure(outbound, f"{scheme}://{host}:{port}/r")).failure == "address-refused"
    assert tool.asked == []
    await outbound.close()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2002:5db8:d822::1", True),
        ("64:ff9b::5db8:d822", True),
        ("192.0.0.0", False),
        ("192.0.0.8", False),
        ("192.0.0.171", False),
        ("192.0.2.1", False),
        ("192.31.196.1", False),
        ("192.52.193.1", False),
        ("192.88.99.1", False),
        ("192.175.48.1", False),
        ("198.18.0.1", False),
        ("198.19.255.255", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("240.0.0.1", False),
        ("100.127.255.255", False),
        ("100.128.0.1", True),
        ("198.20.0.1", True),
        ("223.255.255.254", True),
        ("::127.0.0.1", False),
        ("::93.184.216.34", False),
        ("::ffff:0:127.0.0.1", False),
        ("::ffff:192.88.99.1", False),
        ("64:ff9b:1::1", False),
        ("64:ff9b:1::5db8:d822", False),
        ("64:ff9b::7f00:1", False),
        ("100::1", False),
        ("100:0:0:1::1", False),
        ("2001::1", False),
        ("2001:0:a00:1::5db8:d822", False),
        ("2001:2::1", False),
        ("2001:10::1", False),
        ("2001:20::1", False),
        ("2001:db8::1", False),
        ("2001:4860:4860::8888", True),
        ("2002:7f00:1::1", False),
        ("2620:4f:8000::1", False),
        ("3fff::1", False),
        ("3fff:1000::1", True),
        ("4000::1", False),
        ("5f00::1", False),
        ("fec0::1", False),
        ("feff::1", False),
        ("fd12:3456::1", False),
        ("fe80::1%eth0", False),
        ("ff0e::1", False),
    ],
)
def test_what_a_public_address_is(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


async def test_plain_http_is_for_private_addresses_only(outbound: OutboundClient) -> None:
    assert (await fetch_failure(outbound, "http://93.184.216.34/r")).failure == "address-refused"


async def test_a_redirect_is_not_followed(outbound: OutboundClient, tool: ToolServer) -> None:
    tool.answer("/r", Reply(302, b"", {"Location": f"{tool.url}/other"}))

    assert (await fetch_failure(outbound, f"{tool.url}/r")).failure == "redirected"
    assert len(tool.asked) == 1


async def test_an_answer_over_the_bound_is_given_up(outbound: OutboundClient, tool: ToolServer) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 65_536

    tool.answer("/declared", Reply(body=b" " * 10_001))
    tool.answer("/endless", Reply(chunks=endless))
    assert (await fetch_failure(outbound, f"{tool.url}/declared")).failure == "too-large"
    assert (await fetch_failure(outbound, f"{tool.url}/endless")).failure == "too-large"
    assert sent < 1_000


async def test_a_tool_that_is_silent_is_given_up(tool: ToolServer) -> None:
    over = threading.Event()

    def dripping() -> Iterator[bytes]:
        while not over.wait(0.02):
            yield b" "

    outbound = OutboundClient(timeout_s=0.3, bytes_max=10_000, allow_private=True)
    tool.answer("/silent", Reply(before=lambda: over.wait(20)))
    tool.answer("/dripping", Reply(chunks=dripping))
    try:
        assert (await fetch_failure(outbound, f"{tool.url}/silent")).failure == "timed-out"
        assert (await fetch_failure(outbound, f"{tool.url}/dripping")).failure == "timed-out"
    finally:
        over.set()
        await outbound.close()


async def test_other_answers_have_their_names(outbound: OutboundClient, tool: ToolServer) -> None:
    cases = {
        401: "unauthorised",
        403: "unauthorised",
        404: "not-found",
        410: "not-found",
        400: "refused",
        429: "too-many-requests",
        500: "server-error",
        503: "server-error",
        204: "refused",
    }
    for status, name in cases.items():
        tool.answer("/r", Reply(status, b"" if status == 204 else b"secret words", {"Retry-After": "7"}))
        error = await fetch_failure(outbound, f"{tool.url}/r")
        assert (error.failure, error.retry_after_s) == (name, 7.0)
        assert "secret words" not in str(error)
    tool.answer("/r", Reply(429, b"", {"Retry-After": "9" * 30}))
    assert (await fetch_failure(outbound, f"{tool.url}/r")).retry_after_s == 3_600.0
    tool.answer("/r", Reply(429, b"", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    assert (await fetch_failure(outbound, f"{tool.url}/r")).retry_after_s is None
    for body, headers in ((b"<html>", {}), (b"{}", {"Content-Encoding": "gzip"}), (b"", {})):
        tool.answer("/r", Reply(200, body, headers))
        assert (await fetch_failure(outbound, f"{tool.url}/r")).failure == "no-json"


async def test_refused_connection_is_no_connection(outbound: OutboundClient, tool: ToolServer) -> None:
    assert (await fetch_failure(outbound, "http://127.0.0.1:1/r")).failure == "no-connection"
    assert (await fetch_failure(outbound, "https://no-such-host.invalid/r")).failure == "not-resolved"
    assert (await fetch_failure(outbound, "https:///r")).failure in ("not-resolved", "no-connection")


async def test_tls_is_verified(outbound: OutboundClient, tmp_path: Path) -> None:
    with tool_server(_self_signed(tmp_path)) as tool:
        tool.answer("/r", json_reply(1))
        assert (await fetch_failure(outbound, f"{tool.url}/r")).failure == "no-connection"
        assert tool.asked == []


async def test_no_proxy_of_the_environment_is_used(
    outbound: OutboundClient, tool: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    tool.answer("/r", json_reply(1))
    assert await outbound.get_json(f"{tool.url}/r", {}) == 1


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
