"""Takes secrets out of text that is shown to a person."""

import re

HIDDEN = "[hidden]"

_PATTERNS = (
    (re.compile(r"acc_[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), rf"\1 {HIDDEN}"),
    (re.compile(r"(://[^/\s:@]*:)[^@\s]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"""(?i)((?:password|passwd|secret|token|api_?key)["']?\s*[=:]\s*["']?)[^\s"',;&]+"""), rf"\1{HIDDEN}"),
)


def redact(text: str) -> str:
    """The text without API keys, passwords in URLs, authorization headers and values that are named like secrets."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
