"""Keys are printed once, kept as hashes, and never half-written."""

import base64
import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from accord_local import keys
from accord_local.compose import ENCRYPTION_KEYS_VARIABLE, PASSWORD_VARIABLES, ensure_compose_env
from accord_local.redaction import redact
from accord_local.state import StackState


def _entries(path: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = yaml.safe_load(path.read_text())["keys"]
    return entries


def test_a_created_key_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    options = ["--name", "crm", "--department", "sales", "--scope", "leads:read", "--scope", "decisions:write"]
    command = [sys.executable, "-m", "accord_local.cli", "keys", "create", *options, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    key = done.stdout.strip()
    assert key.startswith("acc_")
    assert len(key) == 47
    assert key not in path.read_text()
    digest = sha256(key.encode()).hexdigest()
    scopes = ["leads:read", "decisions:write"]
    assert _entries(path) == [{"name": "crm", "sha256": digest, "department": "sales", "scopes": scopes}]
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 1
    assert again.stderr == f"accord: {path} has a key named crm already\n"


@pytest.mark.parametrize(
    ("department", "scopes", "reason"),
    [
        ("legal", ["leads:read"], "unknown department"),
        (None, ["leads:eat"], "unknown scope"),
        (None, [], "scope"),
    ],
)
def test_a_key_that_no_service_would_understand_is_refused(tmp_path: Path, department, scopes, reason) -> None:
    with pytest.raises(keys.KeyFileError, match=reason):
        keys.create(tmp_path / "keys.yaml", name="x", department=department, scopes=scopes)
    assert not (tmp_path / "keys.yaml").exists()


def test_a_file_that_is_not_a_keys_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("keys: nonsense\n")
    with pytest.raises(keys.KeyFileError, match="not a keys file"):
        keys.create(path, name="x", department=None, scopes=["admin"])
    assert path.read_text() == "keys: nonsense\n"


def test_dev_keys_are_made_once_and_stay_beside_own_keys(tmp_path: Path) -> None:
    env_path, keys_path = tmp_path / "dev-keys.env", tmp_path / "api-keys.yaml"
    first = keys.ensure_dev_keys(env_path, keys_path)
    keys.create(keys_path, name="own", department=None, scopes=["leads:read"])
    assert keys.ensure_dev_keys(env_path, keys_path) == first
    assert env_path.stat().st_mode & 0o777 == 0o600
    by_name = {entry["name"]: entry for entry in _entries(keys_path)}
    assert set(by_name) == {"dev-admin", "dev-marketing", "dev-sales", "own"}
    assert by_name["dev-admin"]["department"] is None
    assert "admin" not in by_name["dev-sales"]["scopes"]  # type: ignore[operator]
    assert by_name["dev-sales"]["sha256"] == keys.digest(first["ACCORD_SALES_KEY"])


def test_lost_hashes_of_dev_keys_come_back(tmp_path: Path) -> None:
    env_path, keys_path = tmp_path / "dev-keys.env", tmp_path / "api-keys.yaml"
    first = keys.ensure_dev_keys(env_path, keys_path)
    keys_path.unlink()
    assert keys.ensure_dev_keys(env_path, keys_path) == first
    assert len(_entries(keys_path)) == 3


def test_secrets_are_taken_out_of_what_is_shown() -> None:
    key = keys.new_key()
    shown = redact(f"GET {key} postgresql+asyncpg://u:s3cret@host/db Authorization: Bearer ab.cd password='pw1' fine")
    assert key not in shown
    assert not any(secret in shown for secret in ("s3cret", "ab.cd", "pw1"))
    assert shown.startswith("GET ")
    assert shown.endswith("fine")


def test_the_encryption_key_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets-keys"
    keys.ensure_encryption_key(path)
    first = path.read_text()
    assert len(base64.b64decode(first)) == 32
    path.chmod(0o644)
    keys.ensure_encryption_key(path)
    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"supervisor": 3})])
def test_a_state_file_that_makes_no_sense_is_no_state(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert StackState.read(tmp_path / "state.json") is None


def test_compose_gets_passwords_once(tmp_path: Path) -> None:
    path = ensure_compose_env(tmp_path)
    first = keys.read_env(path)
    assert set(first) == {*PASSWORD_VARIABLES, ENCRYPTION_KEYS_VARIABLE}
    assert len(set(first.values())) == len(first)
    assert len(base64.b64decode(first[ENCRYPTION_KEYS_VARIABLE])) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.read_env(ensure_compose_env(tmp_path)) == first
    assert len(_entries(tmp_path / "api-keys.yaml")) == 3
