"""API keys: making them, and keeping their SHA-256 hashes in the file that the services read. Never keeps a key itself,
except for the three of a developer's stack and the one that encrypts the secrets of that stack's sources.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from accord_local.errors import LocalError
from accord_local.files import READABLE, write_atomically

SCOPES = (
    "leads:read",
    "leads:write",
    "personal:read",
    "decisions:write",
    "agreements:write",
    "agreements:sign",
    "sla:read",
    "sla:write",
    "metrics:read",
    "admin",
)
DEPARTMENTS = ("marketing", "sales")
KEY_PREFIX = "acc_"
KEY_BYTES = 32
ENCRYPTION_KEY_BYTES = 32
LOCK_TIMEOUT_S = 10.0
DEV_KEY_VARIABLES = {"ACCORD_ADMIN_KEY": None, "ACCORD_MARKETING_KEY": "marketing", "ACCORD_SALES_KEY": "sales"}


class KeyFileError(LocalError):
    """The keys file can't be read or written, or the key asked for does not fit it."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """What the keys file holds of one key; `sha256` is the hex digest of the key's UTF-8 bytes."""

    name: str
    sha256: str
    department: str | None
    scopes: tuple[str, ...]


def new_key() -> str:
    """`acc_` and 32 random bytes in base64url (43 characters)."""
    return KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")


def digest(key: str) -> str:
    """The form in which a key is kept."""
    return sha256(key.encode()).hexdigest()


def create(path: Path, *, name: str, department: str | None, scopes: Sequence[str]) -> str:
    """Append a new key's hash to the file and answer the key, which is kept nowhere.

    Raises KeyFileError for an unknown scope or department, a name already taken, or a file that is not ours.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise KeyFileError(f"unknown scope {', '.join(unknown) or '(none)'}; there are: {' '.join(SCOPES)}")
    if department is not None and department not in DEPARTMENTS:
        raise KeyFileError(f"unknown department {department}; there are: {' '.join(DEPARTMENTS)}")
    key = new_key()
    _append(path, [KeyEntry(name, digest(key), department, tuple(scopes))])
    return key


def ensure_dev_keys(env_path: Path, keys_path: Path) -> dict[str, str]:
    """The three keys of a developer's stack (variable → key), made at the first start and found again at later ones."""
    keys = read_env(env_path)
    missing = [variable for variable in DEV_KEY_VARIABLES if variable not in keys]
    if missing:
        keys |= {variable: new_key() for variable in missing}
        lines = ["# Keys of this machine's stack only. `set -a; . this-file` puts them into a shell."]
        lines += [f"{variable}={keys[variable]}" for variable in DEV_KEY_VARIABLES]
        write_atomically(env_path, "\n".join(lines) + "\n")
    env_path.chmod(0o600)
    known = {entry.get("sha256") for entry in _read(keys_path)}
    entries = [_dev_entry(variable, keys[variable]) for variable in DEV_KEY_VARIABLES]
    fresh = [entry for entry in entries if entry.sha256 not in known]
    if fresh:
        _append(keys_path, fresh, replace=True)
    return {variable: keys[variable] for variable in DEV_KEY_VARIABLES}


def new_encryption_key() -> str:
    """32 random bytes in base64, as `ACCORD_SECRETS_KEYS` wants them."""
    return base64.b64encode(secrets.token_bytes(ENCRYPTION_KEY_BYTES)).decode()


def ensure_encryption_key(path: Path) -> None:
    """Make the file with the key that encrypts the secrets of sources, if it is not there; nobody else may read it."""
    if not path.exists():
        write_atomically(path, new_encryption_key() + "\n")
    path.chmod(0o600)


def _dev_entry(variable: str, key: str) -> KeyEntry:
    department = DEV_KEY_VARIABLES[variable]
    scopes = SCOPES if department is None else tuple(scope for scope in SCOPES if scope != "admin")
    return KeyEntry(f"dev-{department or 'admin'}", digest(key), department, scopes)


def _append(path: Path, entries: Sequence[KeyEntry], *, replace: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S):
        present = _read(path)
        names = {entry.name for entry in entries}
        taken = [entry["name"] for entry in present if entry.get("name") in names]
        if taken and not replace:
            raise KeyFileError(f"{path} has a key named {taken[0]} already")
        kept = [entry for entry in present if entry.get("name") not in names]
        added = [{**asdict(entry), "scopes": list(entry.scopes)} for entry in entries]
        # Readable by others, for the user inside a container: a hash of 32 random bytes gives nobody a key.
        write_atomically(path, yaml.safe_dump({"keys": [*kept, *added]}, sort_keys=False), mode=READABLE)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        return []
    except (OSError, yaml.YAMLError) as error:
        raise KeyFileError(f"{path} cannot be read: {type(error).__name__}") from error
    entries = content.get("keys", []) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeyFileError(f"{path} is not a keys file: it must hold a list under `keys`")
    return entries


def read_env(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a file; empty when there is none."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}
