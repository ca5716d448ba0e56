"""Writes the reference of services, or checks that it is up to date: an OpenAPI document and a page for each, and one page of settings.

`python -m accord.reference_cli DIRECTORY MODULE…` asks each module (`intake.main`) for its document, in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from accord.http.reference import markdown
from accord.settings import Settings
from accord.settings_reference import settings_page

_NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
"""A document is made without asking the database."""
_TIMEOUT_S = 60.0


def generated(modules: Sequence[str]) -> dict[str, str]:
    """Every file by its name, with its text."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        documents = list(pool.map(_document, modules))
    files: dict[str, str] = {}
    for module, document in zip(modules, documents, strict=True):
        name = module.partition(".")[0].replace("_", "-")
        files[f"{name}.json"] = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        files[f"{name}.md"] = markdown(document)
    files["settings.md"] = settings_page({module.partition(".")[0]: _settings_of(module) for module in modules})
    return files


def _settings_of(module: str) -> type[Settings]:
    found: type[Settings] = importlib.import_module(module).Settings  # that its `build` takes
    return found


def _document(module: str) -> dict[str, object]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ACCORD_")},
        "ACCORD_DATABASE_URL": _NOWHERE,
        "ACCORD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    made = subprocess.run(
        [sys.executable, "-m", module, "openapi"], env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    if made.returncode:
        raise SystemExit(f"{module}: {made.stderr.decode(errors='replace')[-2000:]}")
    document: dict[str, object] = json.loads(made.stdout)
    return document


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m accord.reference_cli", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    parser.add_argument("directory", type=Path)
    parser.add_argument("modules", nargs="+")
    options = parser.parse_args(arguments)
    stale = False
    for name, text in generated(options.modules).items():
        path = options.directory / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if options.check:
            sys.stderr.write(f"{path}: run `make reference`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(stale and options.check)


if __name__ == "__main__":
    raise SystemExit(main())
