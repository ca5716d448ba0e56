"""The reference of an HTTP interface is made of its OpenAPI document, by a process that asks no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accord import reference_cli
from accord.http.reference import markdown

HERE = Path(__file__).parent


@pytest.fixture
def kit_module(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    return "kit_main"


def test_the_page_names_every_route_with_its_scope_and_what_it_takes(kit_module: str) -> None:
    files = reference_cli.generated([kit_module])
    document, page = json.loads(files["kit-main.json"]), files["kit-main.md"]
    assert page == markdown(document)
    for path, item in document["paths"].items():
        for method, one in item.items():
            section = page.split(f"### `{method.upper()} {path}`\n")[1].split("\n### ")[0]
            assert one["summary"] in section
            assert "x-scope" not in one or f"`{one['x-scope']}`" in section
            assert all(f"`{part['name']}`" in section for part in one.get("parameters", []))


def test_a_reference_that_is_out_of_date_is_found(
    kit_module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path), kit_module]
    assert reference_cli.main(["--check", *arguments]) == 1
    assert list(tmp_path.iterdir()) == []
    assert reference_cli.main(arguments) == 0
    assert reference_cli.main(["--check", *arguments]) == 0
    (tmp_path / "kit-main.md").write_text("old")
    capsys.readouterr()
    assert reference_cli.main(["--check", *arguments]) == 1
    assert "kit-main.md: run `make reference`" in capsys.readouterr().err


def test_a_module_that_makes_no_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nothing\.main"):
        reference_cli.main([str(tmp_path), "nothing.main"])
