"""Kafka's jars: resolved by jgo from jgo.toml, pinned by SHA-256 in jgo.lock.toml, kept in Maven's user cache.

`python -m accord_local.jars` resolves anew and writes the lock file (called by `make lock`).
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from jgo.config import GlobalSettings
from jgo.env import EnvironmentBuilder, EnvironmentSpec
from jgo.maven import MavenContext

from accord_local.errors import JarError

SPEC_PATH = Path(__file__).with_name("jgo.toml")
LOCK_PATH = Path(__file__).with_name("jgo.lock.toml")
DOWNLOADS_AT_ONCE = 4
DOWNLOAD_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 600
READ_BYTES = 1 << 20
# Behind a proxy with a certificate of its own, only the system knows whom to trust.
SYSTEM_CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
LOCKED_FIELDS = ("groupId", "artifactId", "version", "packaging", "classifier", "sha256")

Progress = Callable[[int, int], None]
"""Called with how many jars are there and how many there will be."""


def resolve(progress: Progress | None = None) -> list[Path]:
    """The class path, in the lock file's order; jars that are not cached are fetched, and every one is verified.

    Raises JarError when a jar can't be had or its SHA-256 is not the locked one.
    """
    locked = _read_lock()
    report = progress or (lambda _done, _total: None)
    context = _context()
    lock_path = context.repo_cache / ".accord-jars.lock"
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_path, timeout=LOCK_TIMEOUT_S):  # jgo's download is not safe for two programs at once
            return _resolve_all(context, locked, report)
    except Timeout as error:
        raise JarError(f"Kafka's jars: another program has fetched them for {LOCK_TIMEOUT_S} s") from error
    except OSError as error:
        raise JarError(f"Kafka's jars: cannot write {lock_path.parent}: {error.strerror or error}") from error


def _resolve_all(context: MavenContext, locked: list[Mapping[str, str]], report: Progress) -> list[Path]:
    paths: list[Path] = []
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="accord-jars") as pool:
        for path in pool.map(lambda entry: _resolve_one(context, entry), locked):
            paths.append(path)
            report(len(paths), len(locked))
    return paths


def _resolve_one(context: MavenContext, entry: Mapping[str, str]) -> Path:
    name = f"{entry['artifactId']} {entry['version']}"
    component = context.project(entry["groupId"], entry["artifactId"]).at_version(entry["version"])
    artifact = component.artifact(classifier=entry.get("classifier", ""), packaging=entry["packaging"])
    for _attempt in range(2):  # the second time after a download that was broken off earlier
        try:
            path = Path(artifact.resolve())
        except (RuntimeError, requests.RequestException) as error:
            raise JarError(f"Kafka's jar {name} cannot be fetched: {type(error).__name__}") from error
        if _sha256(path) == entry["sha256"]:
            return path
        path.unlink()
    raise JarError(f"Kafka's jar {name} is not the one that jgo.lock.toml names")


def write_lock() -> None:
    """Resolve jgo.toml with its transitive dependencies and write jgo.lock.toml; it names no repository."""
    context = _context()
    spec = EnvironmentSpec.load(SPEC_PATH)
    builder = EnvironmentBuilder(context=context)
    inputs, transitive = context.resolver.resolve(builder.spec_to_dependencies(spec))
    entries: dict[tuple[str, str], dict[str, str]] = {}
    for dependency in [*inputs, *transitive]:
        artifact = dependency.artifact
        if dependency.scope in {"compile", "runtime"}:
            entries[artifact.groupId, artifact.artifactId] = {
                "groupId": artifact.groupId,
                "artifactId": artifact.artifactId,
                "version": artifact.version,
                "packaging": artifact.packaging,
                "classifier": artifact.classifier,
                "sha256": _sha256(Path(artifact.resolve())),
            }
    blocks = ['# Written by `make lock` from jgo.toml.\n[environment]\nname = "accord-kafka"\n']
    for entry in entries.values():
        fields = (f'{name} = "{entry[name]}"' for name in LOCKED_FIELDS if entry[name])
        blocks.append("\n[[dependencies]]\n" + "\n".join(fields) + "\n")
    LOCK_PATH.write_text("".join(blocks))


def _context() -> MavenContext:
    present = next((str(path) for path in SYSTEM_CERTIFICATES if path.exists()), None)
    if present is not None:  # jgo gives requests no other way
        os.environ.setdefault("REQUESTS_CA_BUNDLE", present)
    return MavenContext(repo_cache=Path(GlobalSettings.load().repo_cache), timeout=DOWNLOAD_TIMEOUT_S)


def _read_lock() -> list[Mapping[str, str]]:
    entries: list[Mapping[str, str]] = tomllib.loads(LOCK_PATH.read_text())["dependencies"]
    return entries


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as jar:
        while block := jar.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    write_lock()
