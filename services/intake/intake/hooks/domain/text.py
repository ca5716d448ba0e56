"""The text in the bytes of a body: by its byte order mark, else by the charset that the sender names. Pure."""

from __future__ import annotations

import codecs
import re

REPLACEMENT = "\ufffd"
"""Stands for what could not be read. It is nobody's data, so a value that holds one is left out."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_READ = re.compile(
    r"utf-(?:8|8-sig|16|32)(?:-[bl]e)?|iso8859-\d+|cp\d+|koi8-[a-z]|mac-\w+|shift_jis\w*|euc_\w+|iso2022_\w+|gb\w+|big5\w*|hz|johab|tis-620"
)
_AS_BROWSERS_READ = {
    "ascii": "utf-8",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
}
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)


def find_charset(content_type: str) -> str | None:
    """The charset that a Content-Type names, as Python calls it; None where it names none that is read."""
    found = _CHARSET.search(content_type)
    return None if found is None else find_encoding(found[1])


def find_encoding(name: str) -> str | None:
    """An encoding by any of its names, Latin-1 as the Windows-1252 that browsers take it for; None for one that is not read."""
    try:
        found = codecs.lookup(name.strip().strip("'")).name
    except (LookupError, ValueError):
        return None
    found = _AS_BROWSERS_READ.get(found, found)
    return found if _READ.fullmatch(found) else None


def decode_text(body: bytes, charset: str) -> str:
    """The text, without its mark. A mark says more than a name does; what is no text becomes REPLACEMENT."""
    marked = next((encoding for mark, encoding in _MARKS if body.startswith(mark)), None)
    return body.decode(marked or charset, "replace").removeprefix("\ufeff")
