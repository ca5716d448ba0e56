"""The query of a request holds only what its operation declares, and each parameter once unless it is a list. A misspelt filter that is
passed over gives a wrong answer that looks right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from accord.http.problems import malformed_request, validation_error

_PARAMETERS_MAX = 100
_NAME_CHARS_MAX = 60

Parameters = Mapping[str, bool]
"""Name → whether it may be repeated."""


class QueryRules:
    """What each operation's query may hold, read once from the OpenAPI document. `paths`: the path templates by endpoint."""

    def __init__(self, document: Callable[[], Mapping[str, Any]], paths: Mapping[object, str]) -> None:
        self._document = document
        self._paths = paths
        self._declared: dict[tuple[str, str], Parameters] = {}

    def check(self, request: Request) -> None:
        """Raises Problem 422 naming each parameter that is unknown, or stands twice and may not."""
        query: bytes = request.scope["query_string"]
        if not query:
            return
        declared = self._parameters(request)
        if declared is None:
            return
        try:
            given = parse_qsl(str(query, "latin-1"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX)
        except ValueError:
            raise malformed_request(f"The query has more than {_PARAMETERS_MAX} parameters.") from None
        errors = list(find_errors((name for name, _ in given), declared))
        if errors:
            raise validation_error("The query does not fit this operation; see errors.", *errors)

    def _parameters(self, request: Request) -> Parameters | None:
        """The parameters of the operation that was matched; None where it is not in the document."""
        path = self._paths.get(request.scope.get("endpoint"))
        method = "get" if request.method == "HEAD" else request.method.lower()
        if not self._declared:
            self._declared = dict(_read_document(self._document()))
        return None if path is None else self._declared.get((path, method))


def find_errors(given: Iterable[str], declared: Parameters) -> Iterable[Mapping[str, str]]:
    """What is wrong with the names of a query."""
    known = ", ".join(sorted(declared)) or "none"
    for name, count in Counter(given).items():
        if name not in declared:
            yield {"parameter": name[:_NAME_CHARS_MAX], "message": f"Is no parameter of this operation; it has {known}"}
        elif count > 1 and not declared[name]:
            yield {"parameter": name, "message": "Must stand once"}


def _read_document(document: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], Parameters]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parameters = [found for found in operation.get("parameters", ()) if found["in"] == "query"]
            yield (path, method), {found["name"]: _is_list(found["schema"]) for found in parameters}


def _is_list(schema: Mapping[str, Any]) -> bool:
    return "array" in (schema.get("type"), *(option.get("type") for option in schema.get("anyOf", ())))
