"""Files as they really are: bad rows fail alone, encodings and dialects are found out, what is no table is refused before it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.intake.import_service import CSV, ImportClient, count_rows, running_import_client


@pytest.fixture
async def accord(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file, import_rows_max=100) as one:
        yield one


async def test_each_bad_row_fails_alone_with_its_reason(accord: ImportClient) -> None:
    body = b"".join(
        [
            "email,title\r\nä@initech.example,".encode() + "Köchin\r\n".encode(),
            b"one@initech.example,\xc3\r\n",
            b"two@initech.example,a\x00b\r\n",
            b"three@initech.example\r\n",
            b'four@initech.example,"open\r\n',
            b"five@initech.example,fine\r\n",
            b"six@initech.example," + b"x" * 200_000 + b"\r\n",
            b"seven@initech.example,fine",
        ]
    )
    found = await accord.import_file(body)
    assert count_rows(found) == {"read": 8, "created": 3, "failed": 5}
    reasons = {one["row"]: one["error"] for one in found["quality"]["examples"]}
    assert reasons == {
        3: "The row is not utf-8",
        4: "A NUL character is in the row",
        5: "The row has 1 cells, the header 2",
        6: "A quote is opened and not closed",
        8: "A cell is longer than 131072 characters",
    }
    assert (await accord.errors(found["import_id"])).count("accord") == 2


async def test_windows_1252_is_found_out_though_the_first_blocks_are_ascii(accord: ImportClient) -> None:
    rows = "".join(f"p{n}@initech.example,plain\n" for n in range(40_000)) + "k@initech.example,Köchin\n"
    body = ("email,title\n" + rows).encode("cp1252")
    assert len(body) > 1024 * 1024
    sent = (await accord.send(body, dry_run=True)).json()
    assert sent["file"]["encoding"] == "windows-1252"
    found = await accord.wait_until_ended(sent["import_id"])
    assert count_rows(found) == {"read": 40_001, "created": 40_001}


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
async def test_utf_16_of_a_spreadsheet_is_read(accord: ImportClient, encoding: str, mark: str) -> None:
    body = f"{mark}email\ttitle\r\nada@initech.example\tKöchin\r\n".encode(encoding)
    found = await accord.import_file(body)
    assert (found["file"]["encoding"], found["file"]["delimiter"]) == (encoding, "\t")
    (row,) = await accord.rows("SELECT title FROM lead")
    assert row["title"] == "Köchin"


@pytest.mark.parametrize("line_end", ["\r", "\n", "\r\n"])
async def test_every_line_end_is_one(accord: ImportClient, line_end: str) -> None:
    body = line_end.join(["email", "ada@initech.example", "bob@initech.example"]).encode()
    assert count_rows(await accord.import_file(body)) == {"read": 2, "created": 2}


async def test_a_header_alone_is_an_import_of_nothing(accord: ImportClient) -> None:
    found = await accord.import_file(b"email,name\n")
    assert (found["state"], count_rows(found)) == ("finished", {})


@pytest.mark.parametrize(
    ("body", "params", "place", "why"),
    [
        (b"", {}, "", "There is no row in the body"),
        (b"\xef\xbb\xbf", {}, "", "There is no row in the body"),
        (b"name\nAda\n", {}, "", "No column is mapped to email, phone or external_id"),
        (b"email\n", {"mapping": '{"mail": "email"}'}, "/mail", "There is no such column"),
        (b"email\n", {"mapping": '{"email": "nickname"}'}, "/email", "There is no such field"),
        (b"email,email\n", {"mapping": '{"email": "email"}'}, "/email", "Several columns have this name"),
        (b"email\n", {"mapping": "{"}, "", "neither a JSON object nor the name of a source"),
        (b"email\n", {"mapping": "no such source"}, "", "There is no source of this name"),
        (b",".join([b"c"] * 1_001) + b"\n", {}, "", "1001 cells"),
        (b"," * 3_000_000, {}, "", "does not end within 1048576 bytes"),
        (b'"email\n' + b"x\n" * 750_000, {}, "", "A quote is opened and not closed"),
        (b"email\n", {"encoding": "utf-7"}, "encoding", "Is not an encoding"),
        (b"email\n", {"timezone": "Mars/Olympus"}, "timezone", "Is not a time zone"),
        (b"email\n", {"timezone": "../../etc/passwd"}, "timezone", "Is not a time zone"),
        (b"email\n", {"delimiter": "x"}, "delimiter", "Input should be"),
        (b"email\n", {"source": "a:b"}, "source", "String should match"),
        (b"email\n", {"dryrun": "true"}, "dryrun", "no parameter"),
        (b"email\n", {"rows_per_s": "0"}, "rows_per_s", "greater than or equal to 1"),
    ],
)
async def test_unreadable_file_is_refused_before_anything_is_stored(
    accord: ImportClient, body: bytes, params: dict[str, str], place: str, why: str
) -> None:
    answer = await accord.send(body, **params)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error.get("pointer", error.get("parameter")) == place
    assert why.lower() in error["message"].lower()
    assert await accord.rows("SELECT 1 FROM import_job UNION ALL SELECT 1 FROM import_block") == []


async def test_a_parameter_may_stand_once(accord: ImportClient) -> None:
    answer = await accord.marketing.http.post("/v1/imports?source=a&source=b", content=b"email\n", headers=CSV)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "source")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "text/plain"},
        {},
        {**CSV, "Content-Encoding": "gzip"},
        {**CSV, "Content-Encoding": "br"},
    ],
)
async def test_other_kinds_of_files_and_compressed_ones_are_415(accord: ImportClient, headers: dict[str, str]) -> None:
    answer = await accord.marketing.http.post("/v1/imports?source=a", content=b"email\n", headers=headers)
    assert answer.status_code == 415


async def test_declared_file_properties_are_not_detected(accord: ImportClient) -> None:
    body = "a@initech.example|Kö,ch\n".encode("iso-8859-1")
    mapping = '{"1": "email", "2": "title"}'
    headers = {"Content-Type": "text/csv; charset=iso-8859-1; header=absent"}
    found = await accord.import_file(body, headers, delimiter="pipe", mapping=mapping)
    assert (found["file"]["encoding"], found["file"]["header"]) == ("iso-8859-1", False)
    (row,) = await accord.rows("SELECT email, title FROM lead")
    assert (row["email"], row["title"]) == ("a@initech.example", "Kö,ch")


async def test_a_corrected_file_has_a_header_though_the_first_one_had_none(accord: ImportClient) -> None:
    options = {"header": False, "mapping": '{"1": "email"}'}
    found = await accord.import_file(b"nobody,x\n", **options)
    text = (await accord.errors(found["import_id"])).replace("nobody", "ada@initech.example")
    assert count_rows(await accord.import_file(text.encode(), **options)) == {"read": 1, "created": 1}


async def test_openapi_documents_imports(accord: ImportClient) -> None:
    document = (await accord.marketing.get("/openapi.json")).json()
    assert {"post", "get"} <= set(document["paths"]["/v1/imports"])
    assert set(document["paths"]["/v1/imports"]["post"]["requestBody"]["content"]) == {
        "text/csv",
        "application/x-ndjson",
        "application/octet-stream",
    }
    assert {"202", "409", "413", "415", "422", "503"} <= set(document["paths"]["/v1/imports"]["post"]["responses"])
