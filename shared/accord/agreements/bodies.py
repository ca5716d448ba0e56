"""A document as the body of a request, JSON or YAML: how it is read, and how OpenAPI shows it. Its content is not looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from accord.agreements import documents
from accord.http.problems import Problem, malformed, media_type_of, unsupported_media_type

JSON = "application/json"
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


async def read_document(request: Request) -> documents.Document:
    """The document in the body. Raises Problem 400, 413 or 415."""
    media = media_type_of(request)
    if media != JSON and not media.endswith("+json") and media not in _YAML:
        raise unsupported_media_type(JSON, _YAML[0])
    body = await request.body()
    try:
        return await asyncio.to_thread(documents.read, body, yaml_text=media in _YAML)
    except documents.DocumentTooLarge as error:
        raise Problem(413, "body-too-large", "Body too large", f"{error}.") from None
    except documents.UnreadableDocument as error:
        raise malformed(f"{error}.") from None


def document_body(example: Mapping[str, object], *required: str, **properties: object) -> dict[str, Any]:
    """The `requestBody` of such a document for OpenAPI. All have a kind and a title; `required` and `properties` are what else it has."""
    schema = {
        "type": "object",
        "required": ["kind", "title", *required],
        "properties": {
            "kind": {"type": "string", "const": example.get("kind")},
            "title": {"type": "string", "minLength": 1, "maxLength": 200},
            **properties,
        },
    }
    content = {media: {"schema": schema, "example": dict(example)} for media in (JSON, _YAML[0])}
    return {"requestBody": {"required": True, "description": "The whole document, at most 1 MiB.", "content": content}}
