"""A column that is taken for an id by its name alone never overrules an address, in an import and in its dry run alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.intake.import_service import ImportClient, count_rows, running_import_client

from intake.imports.domain.rows import guess_columns


@pytest.fixture
async def imports(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file, import_rows_max=2) as one:
        yield one


async def first_names(imports: ImportClient) -> dict[str, str]:
    rows = await imports.rows("SELECT email, first_name FROM lead WHERE merged_into IS NULL ORDER BY email")
    return {str(row["email"]).partition("@")[0]: row["first_name"] for row in rows}


@pytest.mark.parametrize("column", ["id", "ID", "Id", " id "])
async def test_row_numbers_called_id_identify_nobody_beside_an_address(imports: ImportClient, column: str) -> None:
    for names in (("ada", "alan"), ("grace", "linus")):
        rows = [f"{number},{name}@initech.example,{name.title()}" for number, name in enumerate(names, 1)]
        file = "\n".join([f"{column},email,first_name", *rows]).encode()
        for dry_run in ("true", "false"):
            found = await imports.import_file(file, dry_run=dry_run)
            assert count_rows(found) == {"read": 2, "created": 2}
            assert found["mapping"]["not_mapped"] == [column.strip()]
    assert await first_names(imports) == {"ada": "Ada", "alan": "Alan", "grace": "Grace", "linus": "Linus"}


@pytest.mark.parametrize("column", ["Record ID", "contact_id", "Lead ID", "contact id", "MQL ID", "RECORD-ID"])
async def test_guessed_id_of_somebody_else_fails_the_row(imports: ImportClient, column: str) -> None:
    first = f"{column},email,first_name\n1,ada@initech.example,Ada\n2,alan@initech.example,Alan\n3,,Zoe\n"
    second = (
        f"{column},email,first_name\n"
        "1,grace@initech.example,Grace\n"  # new beside another address
        "2,ada@initech.example,Linus\n"  # the address of another
        "2,ALAN@initech.example,Alain\n"  # his own
        "3,zoe@initech.example,Zoe\n"  # of whom no address is known
        "1,,Adah\n"  # nothing contradicts
        "9,new@initech.example,New\n"
    )
    assert count_rows(await imports.import_file(first.encode())) == {"read": 3, "created": 3}
    expected = {"read": 6, "created": 1, "updated": 3, "failed": 2}
    for dry_run in ("true", "false"):
        found = await imports.import_file(second.encode(), dry_run=dry_run)
        assert count_rows(found) == expected, dry_run
        errors = [(one["row"], one["error"]) for one in found["quality"]["examples"]]
        words = f"{column}: Leads to a person with another address; nobody has said that this column identifies people"
        assert errors == [(row, f"{words}, so map it if it does") for row in (2, 3)]
    assert await first_names(imports) == {"ada": "Adah", "alan": "Alain", "new": "New", "zoe": "Zoe"}
    assert "grace@initech.example" in await imports.errors(found["import_id"])


async def test_guessed_id_that_comes_twice_in_a_file_is_seen_by_the_dry_run(imports: ImportClient) -> None:
    rows = [
        ("1", "ada"),
        ("2", "alan"),
        ("3", ""),
        ("1", "grace"),
        ("4", "ada"),
        ("3", "eve"),
        ("3", "dan"),
        ("1", "ada"),
    ]
    file = "\n".join(["Record ID,email", *(f"{id_},{name and name + '@initech.example'}" for id_, name in rows)])
    found = [await imports.import_file(file.encode(), dry_run=dry_run) for dry_run in ("true", "false")]
    assert [[one["row"] for one in each["quality"]["examples"]] for each in found] == [[5, 8], [5, 8]]
    assert [count_rows(each) for each in found] == [{"read": 8, "created": 3, "updated": 3, "failed": 2}] * 2


async def test_phone_beside_a_guessed_id_is_not_overruled(imports: ImportClient) -> None:
    first = "Record ID,phone,last_name\n1,+12025550101,One\n2,+12025550102,Two\n"
    second = "Record ID,phone,last_name\n1,+12025550102,Two\n2,+12025550109,Two\n"
    assert count_rows(await imports.import_file(first.encode())) == {"read": 2, "created": 2}
    found = await imports.import_file(second.encode())
    assert count_rows(found) == {"read": 2, "updated": 1, "failed": 1}


async def test_id_that_somebody_has_mapped_is_believed(imports: ImportClient) -> None:
    mapping = json.dumps({"id": "external_id", "email": "email"})
    for name, outcome in (("ada", "created"), ("grace", "updated")):
        file = f"id,email\n1,{name}@initech.example\n".encode()
        assert count_rows(await imports.import_file(file, mapping=mapping)) == {"read": 1, outcome: 1}
    for name, outcome in (("alan", "created"), ("linus", "updated")):
        file = f"external_id,email\n2,{name}@initech.example\n".encode()
        assert count_rows(await imports.import_file(file)) == {"read": 1, outcome: 1}


@pytest.mark.parametrize(
    ("columns", "target"),
    [
        (["id", "email"], None),
        (["ID", "Phone"], None),
        (["id", "first_name"], "id"),
        (["id"], "id"),
        (["email", "Record ID"], "Record ID"),
        (["email", "external_id"], "external_id"),
        (["email", "id", "contact id"], "contact id"),
        (["email", "contact id", "id"], "contact id"),
        (["E-Mail", "#id"], None),
        (["email", "mql_id"], "mql_id"),
    ],
)
def test_column_called_id_identifies_people_only_where_nothing_else_does(
    columns: list[str], target: str | None
) -> None:
    found = [column for column, field in guess_columns(columns).items() if field == "external_id"]
    assert found == ([] if target is None else [target])
