"""What is published for readers in any language: schemas, examples and the AsyncAPI document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from accord import schemas_cli
from accord.contracts.base import EVENT_TYPES
from accord.contracts.codec import decode_value, to_object
from accord.contracts.examples import EXAMPLES
from accord.contracts.schemas import asyncapi, example_event, json_schema
from accord.contracts.topics import AWAITED_TOPICS, CONSUMED_TOPICS, EVENTS_ON, TOPIC_OF

TYPES = sorted(EVENT_TYPES)


def validator(type_: str) -> Draft202012Validator:
    schema = json_schema(type_)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


def test_the_committed_files_are_the_generated_ones() -> None:
    assert schemas_cli.outdated(schemas_cli.DIRECTORY) == []


def test_generating_is_the_same_each_time() -> None:
    assert schemas_cli.generated() == schemas_cli.generated()


def test_check_names_each_file_that_differs_and_write_repairs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--directory", str(tmp_path)]
    assert schemas_cli.main(options) == 0
    assert schemas_cli.main([*options, "--check"]) == 0
    (tmp_path / "asyncapi.yaml").write_text("changed", encoding="utf-8")
    (tmp_path / "lead.forgotten.v1.schema.json").write_text("{}", encoding="utf-8")
    (tmp_path / "examples/lead.captured.v1.json").unlink()
    assert schemas_cli.main([*options, "--check"]) == 1
    said = capsys.readouterr().err
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "asyncapi.yaml",
        "examples/lead.captured.v1.json",
        "lead.forgotten.v1.schema.json",
    ]
    assert schemas_cli.main(options) == 0
    assert schemas_cli.outdated(tmp_path) == []


def test_a_released_schema_that_would_break_its_readers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--directory", str(tmp_path)]
    assert schemas_cli.main([*options, "--release"]) == 0
    released = tmp_path / "released" / "lead.erased.v1.schema.json"
    before = json.loads(released.read_text(encoding="utf-8"))
    before["properties"]["region"] = {"type": "string"}
    released.write_text(json.dumps(before), encoding="utf-8")
    (tmp_path / "released" / "lead.vanished.v1.schema.json").write_text("{}", encoding="utf-8")
    for action in ([], ["--check"], ["--release"]):
        assert schemas_cli.main([*options, *action]) == 1
        said = capsys.readouterr().err
        assert "lead.erased.v1/region: property removed (region)" in said
        assert "lead.vanished.v1: the type is gone" in said


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_has_an_example_that_fits_its_schema(type_: str) -> None:
    example = json.loads((schemas_cli.DIRECTORY / "examples" / f"{type_}.json").read_text(encoding="utf-8"))
    assert list(validator(type_).iter_errors(example)) == []
    assert to_object(EXAMPLES[type_]) == example


@pytest.mark.parametrize("type_", TYPES)
def test_a_consumer_may_rely_on_the_required_fields_and_on_no_other(type_: str) -> None:
    least = {
        name: value for name, value in to_object(EXAMPLES[type_]).items() if name in json_schema(type_)["required"]
    }
    assert list(validator(type_).iter_errors(least)) == []
    assert decode_value(EVENT_TYPES[type_], json.dumps(least))
    for name in least:
        rest = {other: value for other, value in least.items() if other != name}
        assert list(validator(type_).iter_errors(rest)), name


@pytest.mark.parametrize("type_", TYPES)
def test_an_unknown_field_does_not_make_an_event_invalid_for_a_consumer(type_: str) -> None:
    grown = {**to_object(EXAMPLES[type_]), "added_later": 1}
    assert list(validator(type_).iter_errors(grown)) == []


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_and_field_family_is_described(type_: str) -> None:
    schema = json_schema(type_)
    assert schema["description"]
    assert all(model.get("description") for model in schema.get("$defs", {}).values())


# AsyncAPI. No package on PyPI ships the official schema, so the structure is checked here: references, names, messages.


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((schemas_cli.DIRECTORY / "asyncapi.yaml").read_text(encoding="utf-8"))
    return found


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolve(document: object, reference: str) -> object:
    if not reference.startswith("#/"):
        return json.loads((schemas_cli.DIRECTORY / reference).read_text(encoding="utf-8"))
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def test_every_reference_of_the_asyncapi_document_leads_somewhere(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert len(found) > len(EVENT_TYPES)
    assert all(resolve(document, reference) for reference in found)


def test_the_asyncapi_document_has_the_parts_that_version_3_asks_for(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert document["info"].keys() >= {"title", "version"}
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = resolve(document, operation["channel"]["$ref"])
        assert isinstance(channel, dict)
        inside = operation["channel"]["$ref"] + "/messages/"
        assert all(message["$ref"].startswith(inside) for message in operation["messages"])
    for message in document["components"]["messages"].values():
        assert message["payload"].keys() == {"schemaFormat", "schema"}
        Draft202012Validator.check_schema(resolve(document, message["payload"]["schema"]["$ref"]))


def test_the_asyncapi_document_says_who_writes_and_who_reads_what(document: dict[str, Any]) -> None:
    assert document["channels"].keys() == set(EVENTS_ON)
    for service, topic in TOPIC_OF.items():
        assert document["operations"][f"{service}-sends"]["channel"] == {"$ref": f"#/channels/{topic}"}
        assert document["channels"][topic]["messages"].keys() == {event.type for event in EVENTS_ON[topic]}
    receives = {name for name in document["operations"] if not name.endswith("-sends")}
    assert receives == {
        f"{service}-receives-{topic}" for service, topics in CONSUMED_TOPICS.items() for topic in topics
    }


def test_the_examples_in_the_asyncapi_document_fit_headers_and_payload(document: dict[str, Any]) -> None:
    headers = Draft202012Validator(document["components"]["messageTraits"]["CloudEvent"]["headers"])
    for type_, message in document["components"]["messages"].items():
        (example,) = message["examples"]
        headers.validate(example["headers"])
        validator(type_).validate(example["payload"])
        assert example["headers"]["ce_id"] == str(example_event(type_).id)


def test_the_asyncapi_document_is_plain_data() -> None:
    assert yaml.safe_load(yaml.safe_dump(asyncapi())) == asyncapi()


def test_every_event_type_is_written_by_a_service_and_no_topic_waits_for_itself() -> None:
    assert {event.type for events in EVENTS_ON.values() for event in events} == set(EVENT_TYPES)
    upstream: set[str] = set()
    for service, topics in AWAITED_TOPICS.items():
        assert set(topics) <= upstream & set(CONSUMED_TOPICS[service])
        upstream.add(TOPIC_OF[service])
