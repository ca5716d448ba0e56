"""Files become leads: what is found out about them, what became of each row, and the file of errors that is sent again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.intake.import_service import NDJSON, ImportClient, count_rows, running_import_client

LEAD_TABLES = ("lead", "identity_key", "submission", "account")
PEOPLE = (
    "E-Mail;Vorname;Staff;When;Shoe size\r\n"
    "ada@initech.example;Ada;250;2018-02-01;38\r\n"
    "\r\n"
    "bob@initech.example;Bob;40;2018-02-01 10:00;44\r\n"
    "nobody;Eve;1;2018-02-01;40\r\n"
    "eve@initech.example;Eve;1;yesterday;40\r\n"
    "ada@initech.example;Ada;251;2018-02-02;38\r\n"
)
COLUMNS = {"E-Mail": "email", "Vorname": "first_name", "Staff": "attributes.employee_count", "When": "occurred_at"}
MAPPING = json.dumps(COLUMNS)


@pytest.fixture
async def accord(database_url: str, keys_file: Path) -> AsyncIterator[ImportClient]:
    async with running_import_client(database_url, keys_file, import_rows_max=100) as one:
        yield one


async def everything(accord: ImportClient) -> dict[str, Any]:
    """All that imports change for leads, and what is told of it."""
    state = {table: await accord.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in LEAD_TABLES}
    return {**state, "events": len([one for one in await accord.events() if one["type"].startswith("lead.")])}


# a file ------------------------------------------------------------------------------------------------------------
async def test_a_file_becomes_leads_and_each_row_has_its_result(accord: ImportClient) -> None:
    sent = await accord.send(PEOPLE.encode(), mapping=MAPPING, timezone="America/Chicago")
    assert sent.status_code == 202, sent.text
    assert sent.headers["location"] == f"/v1/imports/{sent.json()['import_id']}"
    found = await accord.wait_until_ended(sent.json()["import_id"])
    assert (found["state"], found["share_done"], found["error"]) == ("finished", 1.0, None)
    assert count_rows(found) == {"read": 5, "created": 2, "updated": 1, "failed": 2}
    assert found["mapping"] == {"origin": "request", "columns": COLUMNS, "not_mapped": ["Shoe size"]}
    file = found["file"]
    assert (file["delimiter"], file["line_end"], file["encoding"], file["encoding_detected"]) == (
        ";",
        "CRLF",
        "utf-8",
        True,
    )
    rows = await accord.results(found["import_id"])
    assert [(row["row"], row["outcome"]) for row in rows] == [
        (2, "created"),
        (4, "created"),
        (5, "failed"),
        (6, "failed"),
        (7, "updated"),
    ]
    assert rows[0]["lead_id"] == rows[4]["lead_id"]
    lead = (await accord.marketing.get(f"/v1/leads/{rows[0]['lead_id']}")).json()
    assert (lead["source"], lead["captured_at"]) == ("list", "2018-02-01T06:00:00Z")
    assert lead["person"]["first_name"] == "Ada"
    assert lead["attributes"]["employee_count"] == "251"


async def test_raw_row_is_stored_with_unmapped_columns(accord: ImportClient) -> None:
    await accord.import_file(PEOPLE.encode(), mapping=MAPPING)
    kept = [json.loads(row["content"]) for row in await accord.rows("SELECT content FROM submission ORDER BY 1")]
    assert {
        "E-Mail": "bob@initech.example",
        "Vorname": "Bob",
        "Staff": "40",
        "When": "2018-02-01 10:00",
        "Shoe size": "44",
    } in kept


async def test_nothing_is_left_of_the_file_when_it_is_done(accord: ImportClient) -> None:
    await accord.import_file(PEOPLE.encode(), mapping=MAPPING)
    assert await accord.rows("SELECT 1 FROM import_block") == []


async def test_end_of_import_is_published_with_counts(accord: ImportClient) -> None:
    found = await accord.import_file(PEOPLE.encode(), mapping=MAPPING)
    (told,) = await accord.events("import.finished.v1")
    assert (told["import_id"], told["source"], told["state"]) == (found["import_id"], "list", "finished")
    assert told["rows"] == found["rows"]


async def test_columns_are_guessed_where_no_mapping_is_given(accord: ImportClient, template: dict[str, Any]) -> None:
    await accord.sign(template)
    found = await accord.import_file(b"Email,First Name,Employee Count,Hobby\nada@initech.example,Ada,250,chess\n")
    assert found["mapping"] == {
        "origin": "names",
        "columns": {"Email": "email", "First Name": "first_name", "Employee Count": "attributes.employee_count"},
        "not_mapped": ["Hobby"],
    }
    (lead,) = await accord.rows("SELECT first_name, attributes FROM lead")
    assert (lead["first_name"], json.loads(lead["attributes"])) == ("Ada", {"employee_count": 250})


async def test_mapping_of_source_is_used_unless_overridden(accord: ImportClient) -> None:
    await accord.rows(
        "INSERT INTO source (name, settings, mapping, defaults, secrets, version, created_at, updated_at)"
        " VALUES ('fair', '{}', $1, $2, '[]', 1, now(), now())",
        '{"columns": {"Who": "email", "Gone": "title"}}',
        '{"campaign.name": "fair 2026"}',
    )
    body = b"Who,Email\nada@initech.example,bob@initech.example\n"
    by_source = await accord.import_file(body, source="fair")
    assert by_source["mapping"]["origin"] == "source"
    assert by_source["mapping"]["columns"] == {"Who": "email"}
    (lead,) = await accord.rows("SELECT email, campaign FROM lead")
    assert (lead["email"], json.loads(lead["campaign"])["name"]) == ("ada@initech.example", "fair 2026")
    by_name = await accord.import_file(body, mapping="fair")
    assert by_name["mapping"]["columns"] == {"Who": "email"}
    said = await accord.import_file(body, source="fair", mapping='{"Email": "email"}')
    assert said["mapping"]["origin"] == "request"


async def test_the_source_may_stand_in_a_column(accord: ImportClient) -> None:
    body = b"id,origin\n1,social\n2,\n"
    await accord.import_file(body, mapping='{"id": "external_id", "origin": "source"}')
    assert {row["source"] for row in await accord.rows("SELECT source FROM lead")} == {"social", "list"}
    found = (await accord.marketing.get("/v1/leads", external="social:1")).json()["items"]
    assert len(found) == 1


async def test_lines_of_ndjson_are_submissions(accord: ImportClient) -> None:
    lines = [
        {"email": "ada@initech.example", "attributes": {"employee_count": 250}, "occurred_at": "2026-01-01"},
        {"source": "other", "external_id": "7"},
        {"email": "bob@initech.example", "shoe": 43},
    ]
    body = b"\xef\xbb\xbf" + b"\n".join([*(json.dumps(line).encode() for line in lines), b"", b"{not json", b"[]"])
    found = await accord.import_file(body, NDJSON)
    assert count_rows(found) == {"read": 5, "created": 2, "failed": 3}
    assert found["mapping"]["origin"] == "submissions"
    assert [row["row"] for row in await accord.results(found["import_id"])] == [1, 2, 3, 5, 6]
    errors = [json.loads(line) for line in (await accord.errors(found["import_id"])).splitlines()]
    assert errors == [
        {"accord_row": 3, "accord_error": "shoe: Extra inputs are not permitted", **lines[2]},
        {"accord_row": 5, "accord_error": "The row is not JSON", "accord_line": "{not json"},
        {"accord_row": 6, "accord_error": "The row is not a JSON object", "accord_line": "[]"},
    ]


# judged as everything else -----------------------------------------------------------------------------------------
def policed(*rows: str) -> bytes:
    return "\n".join(["email,employee_count,industry,country", *rows, ""]).encode()


GOOD, FLAGGED = "ada@initech.example,250,541511,US", "bob@initech.example,3,541511,US"
HELD, REFUSED = "eve@initech.example,250,111110,US", "max@mailinator.com,250,541511,US"


async def test_rows_are_evaluated_by_active_policy(accord: ImportClient, template: dict[str, Any]) -> None:
    await accord.sign(template)
    found = await accord.import_file(policed(GOOD, FLAGGED, HELD, REFUSED))
    assert count_rows(found) == {"read": 4, "created": 2, "quarantined": 1, "rejected": 1}
    quality = found["quality"]
    assert sum(quality["verdicts"].values()) == 4
    assert quality["failed"]["reachable"] == 1
    assert [one["row"] for one in quality["examples"]] == [5]
    rows = await accord.results(found["import_id"])
    assert [row["outcome"] for row in rows] == ["created", "created", "quarantined", "rejected"]
    assert rows[2]["verdict"] == "quarantined"
    assert rows[3]["lead_id"] is None
    assert [row["row"] for row in await accord.results(found["import_id"], outcome="quarantined")] == [4]
    assert "reachable" in await accord.errors(found["import_id"])


async def test_a_dry_run_foresees_and_writes_no_lead(accord: ImportClient, template: dict[str, Any]) -> None:
    await accord.sign(template)
    await accord.import_file(policed(GOOD))
    before = await everything(accord)
    rows = [GOOD, FLAGGED, HELD, REFUSED, FLAGGED, HELD, "nobody,1,2,US"] + [
        f"p{n % 150}@initech.example,250,541511,US" for n in range(300)
    ]
    found = await accord.import_file(policed(*rows), dry_run=True)
    assert (found["state"], found["dry_run"]) == ("finished", True)
    foreseen = count_rows(found)
    assert foreseen == {
        "read": 307,
        "created": 151,
        "updated": 151,
        "unchanged": 1,
        "quarantined": 2,
        "rejected": 1,
        "failed": 1,
    }
    assert await everything(accord) == before
    assert await accord.results(found["import_id"]) == []
    assert len(found["quality"]["examples"]) == 2
    assert len(await accord.events("import.finished.v1")) == 1


async def test_what_a_dry_run_foresees_comes_true(accord: ImportClient, template: dict[str, Any]) -> None:
    await accord.sign(template)
    rows = [GOOD, FLAGGED, HELD, REFUSED, "nobody,1,2,US"] + [
        f"p{n % 40}@initech.example,250,541511,US" for n in range(250)
    ]
    foreseen = await accord.import_file(policed(*rows), dry_run=True)
    true = await accord.import_file(policed(*rows))
    assert foreseen["rows"] == true["rows"]
    assert foreseen["quality"]["verdicts"] == true["quality"]["verdicts"]
    assert foreseen["quality"]["failed"] == true["quality"]["failed"]


# the same again ----------------------------------------------------------------------------------------------------
async def test_the_same_file_twice_changes_nothing(accord: ImportClient, template: dict[str, Any]) -> None:
    await accord.sign(template)
    body = policed(GOOD, FLAGGED, HELD, REFUSED, *(f"p{n}@initech.example,250,541511,US" for n in range(250)))
    first = await accord.import_file(body)
    before = await everything(accord)
    again = await accord.import_file(body)
    assert count_rows(again) == {"read": 254, "unchanged": 254}
    assert await everything(accord) == before
    firsts, seconds = [await accord.results(one["import_id"]) for one in (first, again)]
    assert [row["lead_id"] for row in firsts] == [row["lead_id"] for row in seconds]


async def test_new_policy_evaluates_unchanged_rows_again(accord: ImportClient, template: dict[str, Any]) -> None:
    await accord.import_file(policed(GOOD, REFUSED))
    await accord.sign(template)
    found = await accord.import_file(policed(GOOD, REFUSED))
    assert count_rows(found) == {"read": 2, "updated": 1, "rejected": 1}


async def test_changed_rows_are_imported_again(accord: ImportClient) -> None:
    await accord.import_file(policed(GOOD, FLAGGED))
    found = await accord.import_file(policed(GOOD.replace("250", "300"), FLAGGED, "new@initech.example,1,2,US"))
    assert count_rows(found) == {"read": 3, "created": 1, "updated": 1, "unchanged": 1}


async def test_the_same_rows_of_another_source_are_its_own(accord: ImportClient) -> None:
    await accord.import_file(policed(GOOD))
    assert count_rows(await accord.import_file(policed(GOOD), source="other")) == {"read": 1, "updated": 1}


async def test_the_last_row_counts_and_not_an_earlier_one(accord: ImportClient) -> None:
    outcomes = []
    for title in ("CTO", "CEO", "CTO"):
        found = await accord.import_file(f"email,title\nada@initech.example,{title}\n".encode())
        outcomes.append(count_rows(found))
    assert outcomes == [{"read": 1, "created": 1}, {"read": 1, "updated": 1}, {"read": 1, "updated": 1}]
    (lead,) = await accord.rows("SELECT title FROM lead")
    assert lead["title"] == "CTO"


async def test_an_id_of_the_source_names_the_record_though_its_address_changes(accord: ImportClient) -> None:
    for address in ("ada@initech.example", "ada@globex.example", "ada@initech.example"):
        found = await accord.import_file(f"external_id,email\n7,{address}\n".encode())
    assert count_rows(found) == {"read": 1, "updated": 1}
    (lead,) = await accord.rows("SELECT email FROM lead")
    assert lead["email"] == "ada@initech.example"


@pytest.mark.parametrize("phones_shared", [False, True])
async def test_quarantined_rows_with_one_phone_wait_once_however_often_the_file_comes(
    accord: ImportClient, template: dict[str, Any], phones_shared: bool
) -> None:
    await accord.sign({**template, "phones_shared": phones_shared})
    rows = [f"p{n}@initech.example,+12025550143,250,111110,US" for n in range(20)]
    body = "\n".join(["email,phone,employee_count,industry,country", *rows, ""]).encode()
    first = await accord.import_file(body)
    assert count_rows(first) == {"read": 20, "quarantined": 20}
    for _ in range(2):
        assert count_rows(await accord.import_file(body)) == {"read": 20, "unchanged": 20}
    assert len(await accord.rows("SELECT 1 FROM submission")) == 20


async def test_the_same_text_by_another_mapping_is_taken(accord: ImportClient) -> None:
    body = b"email,a\nada@initech.example,Initech\n"
    await accord.import_file(body, mapping='{"email": "email", "a": "last_name"}')
    found = await accord.import_file(body, mapping='{"email": "email", "a": "company"}')
    assert count_rows(found) == {"read": 1, "updated": 1}
    (lead,) = await accord.rows("SELECT company FROM lead")
    assert lead["company"] == "Initech"


async def test_nothing_of_a_person_is_remembered_after_erasure(accord: ImportClient) -> None:
    await accord.import_file(b"email,id\nada@initech.example,7\nbob@initech.example,8\n")
    (row,) = await accord.rows("SELECT lead_id FROM lead WHERE email = 'ada@initech.example'")
    await accord.marketing.http.delete(f"/v1/leads/{row['lead_id']}", params={"reason": "request"})
    assert len(await accord.rows("SELECT 1 FROM import_record")) == 1
    found = await accord.import_file(b"email,id\nada@initech.example,7\nbob@initech.example,8\n")
    assert count_rows(found) == {"read": 2, "created": 1, "unchanged": 1}


# errors ------------------------------------------------------------------------------------------------------------
async def test_the_file_of_errors_is_corrected_and_sent_again(accord: ImportClient) -> None:
    body = (
        b"mail;phone;title;note\r\n"
        b"ada@initech.example;+12025550143;=2+5;ok\r\n"
        b'nobody;+12025550144;=HYPERLINK("http://evil");\'quoted\r\n'
        b"eve@initech.example;;-1;@x;too many\r\n"
    )
    mapping = '{"mail": "email", "phone": "phone", "title": "title"}'
    found = await accord.import_file(body, mapping=mapping)
    assert count_rows(found) == {"read": 3, "created": 1, "failed": 2}
    text = await accord.errors(found["import_id"])
    header, *rows = csv.reader(io.StringIO(text), delimiter=";")
    assert header == ["accord_row", "accord_error", "mail", "phone", "title", "note"]
    assert rows == [
        ["3", "mail: Is not an e-mail address", "nobody", "'+12025550144", '\'=HYPERLINK("http://evil")', "''quoted"],
        ["4", "The row has 5 cells, the header 4", "eve@initech.example", "", "'-1", "'@x", "too many"],
    ]
    corrected = text.replace(";nobody;", ";bob@initech.example;").replace(";too many", "")
    again = await accord.import_file(corrected.encode(), mapping=mapping)
    assert (count_rows(again), again["file"]["corrected"]) == ({"read": 2, "created": 2}, True)
    assert again["mapping"]["not_mapped"] == ["note"]
    leads = {row["email"]: row for row in await accord.rows("SELECT email, phone, title FROM lead")}
    assert leads["bob@initech.example"]["title"] == '=HYPERLINK("http://evil")'
    assert leads["bob@initech.example"]["phone"] == "+12025550144"
    assert leads["eve@initech.example"]["title"] == "-1"
    kept = [json.loads(row["content"]) for row in await accord.rows("SELECT content FROM submission")]
    assert {
        "mail": "bob@initech.example",
        "phone": "+12025550144",
        "title": '=HYPERLINK("http://evil")',
        "note": "'quoted",
    } in kept


async def test_lines_of_errors_are_corrected_and_sent_again(accord: ImportClient) -> None:
    found = await accord.import_file(b'{"email": "nobody", "title": "=1"}\n', NDJSON)
    text = (await accord.errors(found["import_id"])).replace("nobody", "ada@initech.example")
    assert count_rows(await accord.import_file(text.encode(), NDJSON)) == {"read": 1, "created": 1}
    (row,) = await accord.rows("SELECT title FROM lead")
    assert row["title"] == "=1"


async def test_errors_are_personal_data(accord: ImportClient) -> None:
    found = await accord.import_file(b"email\nnobody\n")
    assert (await accord.caller("reader").get(f"/v1/imports/{found['import_id']}/errors")).status_code == 403
    assert (await accord.caller("public").get(f"/v1/imports/{found['import_id']}")).status_code == 403


async def test_rows_that_failed_are_found_by_the_person_in_them(accord: ImportClient) -> None:
    body = b'email,when,id\nada@initech.example,yesterday,\neve@initech.example,,\n"broken,now,7\n'
    found = await accord.import_file(body, mapping='{"email": "email", "when": "occurred_at", "id": "external_id"}')
    assert count_rows(found) == {"read": 3, "created": 1, "failed": 2}
    keys = [row["keys"] for row in await accord.rows("SELECT keys FROM import_failure ORDER BY row_number")]
    assert keys[0] == ["email:ada@initech.example"]


async def test_rows_whose_id_is_none_fail_and_join_nobody(accord: ImportClient) -> None:
    file = b"crm_id,email\nundefined,ada@initech.example\nundefined,grace@globex.example\n1.23457E+11,alan@globex.example\n"
    mapping = '{"crm_id": "external_id", "email": "email"}'
    found = await accord.import_file(file, mapping=mapping)
    assert count_rows(found) == {"read": 3, "failed": 3}
    assert await accord.rows("SELECT 1 FROM lead") == []
    errors = (await accord.marketing.get(f"/v1/imports/{found['import_id']}/errors")).text
    assert "crm_id: Is a word for nothing and names no record" in errors
    assert "lost its digits" in errors
