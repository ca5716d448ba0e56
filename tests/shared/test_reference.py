"""The reference of an HTTP interface is made of its OpenAPI document, by a process that asks no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord import reference_cli
from accord.http.reference import markdown

HERE = Path(__file__).parent


def test_a_reference_names_every_route_with_what_it_takes_and_is_found_when_it_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    arguments = [str(tmp_path), "kit_main"]
    assert reference_cli.main(arguments) == 0
    document_path, page_path = tmp_path / "kit-main.json", tmp_path / "kit-main.md"
    assert_page_tells_all(json.loads(document_path.read_text()), page_path.read_text())
    assert reference_cli.main(["--check", *arguments]) == 0
    page_path.write_text("old")
    document_path.unlink()
    capsys.readouterr()
    assert reference_cli.main(["--check", *arguments]) == 1
    said = capsys.readouterr().err
    assert "kit-main.md: run `make reference`" in said
    assert "kit-main.json: run `make reference`" in said
    assert set(tmp_path.iterdir()) == {page_path, tmp_path / "settings.md"}
    assert "## kit-main" in (tmp_path / "settings.md").read_text()
    assert page_path.read_text() == "old"


def assert_page_tells_all(document: dict[str, Any], page: str) -> None:
    """Every route with its scope and parameters; and the page is that of this document."""
    assert page == markdown(document)
    for path, item in document["paths"].items():
        for method, one in item.items():
            section = page.split(f"### `{method.upper()} {path}`\n")[1].split("\n### ", maxsplit=1)[0]
            assert one["summary"] in section
            assert "x-scope" not in one or f"`{one['x-scope']}`" in section
            assert all(f"`{part['name']}`" in section for part in one.get("parameters", []))


def test_a_module_that_makes_no_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nothing\.main"):
        reference_cli.main([str(tmp_path), "nothing.main"])
