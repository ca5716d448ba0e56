"""Writing small files so that a reader sees the old content or the new, never half of it."""

import os
import secrets
from pathlib import Path

PRIVATE = 0o600
READABLE = 0o644


def write_atomically(path: Path, text: str, *, mode: int = PRIVATE) -> None:
    """Replace the file's content in one step; the file has `mode` from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
