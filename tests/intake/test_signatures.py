"""What a tool sends is proved over its raw bytes, by the secrets that are valid now, within five minutes; anything else proves nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.intake.tools import PUBLIC, TOOLS, WHSEC, Call, ToolExample, b64, hmac_by_openssl, hubspot_v1

from intake.sources.domain.adapters import ADAPTERS
from intake.sources.domain.adapters.base import HookRequest, Verification
from intake.sources.domain.signatures import (
    check_secret,
    check_signature,
    decode_base64,
    decode_hex,
    hmac_sha1,
    hmac_sha256,
    parse_integer,
)

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)


def build_request(call: Call, method: str = "POST", **changes: object) -> HookRequest:
    parts = urlsplit(call.path)
    path_secret = parts.path.split("/")[4] if parts.path.count("/") == 4 else None
    values = {
        "method": method,
        "url": PUBLIC + call.path,
        "query": dict(parse_qsl(parts.query)),
        "headers": dict(call.headers),
        "body": call.body,
        "path_secret": path_secret,
        **changes,
    }
    return HookRequest(**values)  # type: ignore[arg-type]


def verify_request(
    tool: ToolExample, request: HookRequest, *secrets: str, now: datetime = NOW, **settings: object
) -> Verification:
    adapter = ADAPTERS[tool.name]
    known = {tool.use: [secret.encode() for secret in secrets]}
    return adapter.verify(request, known, adapter.settings.model_validate(settings), now)


every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)


@every_tool
def test_right_secret_is_verified(tool: ToolExample) -> None:
    assert verify_request(tool, build_request(tool.call("s", at=NOW)), tool.secret).is_verified


@every_tool
def test_another_secret_fails_verification(tool: ToolExample) -> None:
    call = tool.call("s", secret=tool.other_secret, at=NOW)

    assert verify_request(tool, build_request(call), tool.secret).refusal == "wrong"


@every_tool
def test_both_secrets_are_verified_during_rotation(tool: ToolExample) -> None:
    for secret in (tool.secret, tool.other_secret):
        assert verify_request(
            tool, build_request(tool.call("s", secret=secret, at=NOW)), tool.other_secret, tool.secret
        ).is_verified


@every_tool
def test_request_without_signature_fails_verification(tool: ToolExample) -> None:
    call = Call("/v1/hooks/s", {"content-type": "application/json"}, tool.event)

    assert verify_request(tool, build_request(call), tool.secret).refusal == "missing"


@every_tool
def test_a_source_without_a_secret_is_never_open(tool: ToolExample) -> None:
    assert verify_request(tool, build_request(tool.call("s", at=NOW))).refusal == "no-secret"
    assert not verify_request(tool, build_request(Call("/v1/hooks/s", {}, b""))).is_verified


@pytest.mark.parametrize("tool", [one for one in TOOLS.values() if one.use == "signing"], ids=lambda tool: tool.name)
def test_changed_byte_of_body_fails_verification(tool: ToolExample) -> None:
    call = tool.call("s", at=NOW)
    changed = Call(call.path, call.headers, call.body.replace(b"a", b"b", 1) + b" ")

    assert verify_request(tool, build_request(changed), tool.secret).refusal == "wrong"


@pytest.mark.parametrize("tool", [tool for tool in TOOLS.values() if tool.timed], ids=lambda tool: tool.name)
def test_a_signed_time_more_than_five_minutes_off_is_refused(tool: ToolExample) -> None:
    for minutes, refusal in ((5, None), (-5, None), (6, "stale"), (-6, "ahead")):
        call = tool.call("s", at=NOW - timedelta(minutes=minutes))
        assert verify_request(tool, build_request(call), tool.secret).refusal == refusal


@pytest.mark.parametrize(
    "garbage", ["", " ", "v1,", "v1,%%", "sha256=", "sha256=zz", "hmacsha256=", "ü", "v1,AAAA v1,", "=" * 5000]
)
@every_tool
def test_garbage_signature_fails_verification(tool: ToolExample, garbage: str) -> None:
    call = tool.call("s", at=NOW)
    headers = {
        name: garbage if "signature" in name or name in ("authorization", "x-accord-secret") else value
        for name, value in call.headers.items()
    }
    path = f"/v1/hooks/s/{garbage}" if tool.use == "url" else call.path

    verification = verify_request(tool, build_request(Call(path, headers, call.body)), tool.secret)

    assert verification.refusal in ("missing", "wrong")


def test_the_published_vector_of_standard_webhooks_holds() -> None:
    call = Call(
        "/v1/hooks/s",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
    )
    at = datetime.fromtimestamp(1614265330, UTC)

    assert verify_request(TOOLS["standard-webhooks"], build_request(call), WHSEC, now=at).is_verified


def test_one_right_signature_among_several_is_enough() -> None:
    tool = TOOLS["standard-webhooks"]
    call = tool.call("s", at=NOW)
    several = f"v1a,AAAA v2,BBBB v1,{b64(b'x' * 32)} {call.headers['webhook-signature']}"

    assert verify_request(
        tool, build_request(Call(call.path, {**call.headers, "webhook-signature": several}, call.body)), tool.secret
    ).is_verified


def test_the_published_vector_of_the_hub_signature_holds() -> None:
    """The example of a signed webhook in GitHub's documentation, which is of the same scheme as Meta's."""
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    call = Call("/v1/hooks/s", {"x-hub-signature-256": f"sha256={digest}"}, b"Hello, World!")

    assert verify_request(TOOLS["meta-lead-ads"], build_request(call), "It's a Secret to Everybody").is_verified


def test_the_published_vectors_of_the_hashes_hold() -> None:
    """RFC 2202 and RFC 4231, test case 2 of both."""
    message, key = b"what do ya want for nothing?", b"Jefe"

    assert hmac_sha1(message)(key).hex() == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac_sha256(message[:5], message[5:])(key).hex() == expected


def test_hubspot_v1_signature_is_verified_unless_forbidden() -> None:
    tool = TOOLS["hubspot"]
    _, headers = hubspot_v1(tool.event, tool.secret, NOW, "")
    call = Call("/v1/hooks/s", headers, tool.event)

    assert verify_request(tool, build_request(call), tool.secret).is_verified
    assert verify_request(tool, build_request(call), "another").refusal == "wrong"
    assert verify_request(tool, build_request(call), tool.secret, signatures="v3").refusal == "missing"
    assert (
        verify_request(
            tool, build_request(call, headers={**headers, "x-hubspot-signature-version": "v2"}), tool.secret
        ).refusal
        == "missing"
    )


def test_hubspot_hashes_the_uri_with_some_escapes_undone() -> None:
    tool, stamp = TOOLS["hubspot"], str(int(NOW.timestamp() * 1000))
    sent = "https://crm.example/v1/hooks/hub%20spot%2Fx?a=b%3Ac%40d%26e"
    hashed = "https://crm.example/v1/hooks/hub%20spot/x?a=b:c@d%26e"
    digest = hmac_by_openssl("sha256", tool.secret, b"POST" + hashed.encode() + b"[]" + stamp.encode())
    headers = {"x-hubspot-signature-v3": b64(digest), "x-hubspot-request-timestamp": stamp}

    assert verify_request(tool, build_request(Call("", headers, b"[]"), url=sent), tool.secret).is_verified
    assert (
        verify_request(
            tool, build_request(Call("", headers, b"[]"), url=sent.replace("crm", "cdn")), tool.secret
        ).refusal
        == "wrong"
    )


def test_linkedins_signature_holds_with_and_without_its_prefix() -> None:
    tool = TOOLS["linkedin-lead-gen"]
    call = tool.call("s")
    bare = call.headers["x-li-signature"].removeprefix("hmacsha256=")

    assert verify_request(
        tool, build_request(Call(call.path, {"x-li-signature": bare}, call.body)), tool.secret
    ).is_verified
    assert verify_request(
        tool, build_request(Call(call.path, {"x-li-signature": bare.upper()}, call.body)), tool.secret
    ).is_verified


def test_generic_sender_is_verified_by_any_secret_or_api_key() -> None:
    adapter = ADAPTERS["generic"]
    settings = adapter.settings.model_validate({"header": "X-Token"})
    known = {use: [f"the secret of {use}".encode()] for use in adapter.secret_kinds}

    def refusal(**changes: object) -> str | None:
        return adapter.verify(build_request(Call("/v1/hooks/s", {}, b"{}"), **changes), known, settings, NOW).refusal

    assert refusal(headers={"x-token": "the secret of header"}) is None
    assert refusal(headers={"authorization": "Bearer the secret of bearer"}) is None
    assert refusal(path_secret="the secret of url") is None
    assert refusal(query={"secret": "the secret of url"}) is None
    assert refusal(has_api_key=True) is None
    assert refusal(headers={"authorization": "Basic the secret of bearer"}) == "missing"
    assert refusal(headers={"x-token": "the secret of url"}) == "wrong"


def test_marketo_is_verified_by_its_header_alone() -> None:
    adapter = ADAPTERS["marketo"]
    call = Call("/v1/hooks/s", {"authorization": "Bearer the-custom-header"}, b"{}")

    request = build_request(call, has_api_key=True, path_secret="the-custom-header")
    assert adapter.verify(request, {"header": [b"the-custom-header"]}, adapter.settings(), NOW).refusal == "missing"


@pytest.mark.parametrize("text", ["", "-5", "+5", " 5", "5.0", "1e9", "٥", "9" * 17, None])
def test_a_time_that_is_no_plain_number_is_none(text: str | None) -> None:
    assert parse_integer(text) is None


@given(st.binary(max_size=200), st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=3))
def test_only_a_digest_of_one_of_the_keys_holds(message: bytes, keys: list[bytes]) -> None:
    mac = hmac_sha256(message)
    for key in keys:
        assert check_signature([decode_hex(mac(key).hex())], keys, mac) is None
        assert check_signature([decode_base64(b64(mac(key)))], keys, mac) is None
    assert check_signature([mac(b"no key of these" * 9)], keys, mac) == "wrong"


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_a_secret_is_itself_only(offered: str, secret: str) -> None:
    refusal = check_secret(offered, [secret.encode("utf-8", "surrogatepass")])
    assert (refusal is None) == (offered == secret)
