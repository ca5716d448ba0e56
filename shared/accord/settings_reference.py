"""The page of all settings, made of the classes that read them."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from accord.settings import Settings

_HEAD = """# Settings

Each setting is an environment variable of the service's process. Empty ones count as not set. Whole
numbers of bytes, days and rows; seconds may have a fraction. A name that ends in `_FILE` is a path.
A process with a setting that is wrong ends with exit code 2 and names it.

This page is generated from the code by `make reference`.
"""


def settings_page(services: Mapping[str, type[Settings]]) -> str:
    """Markdown: what all services share, then what each adds or sets otherwise."""
    parts = [_HEAD, "## All services\n", _table(Settings.model_fields)]
    for service, settings in services.items():
        own = {
            name: field
            for name, field in settings.model_fields.items()
            if name not in Settings.model_fields or field.default != Settings.model_fields[name].default
        }
        parts += [f"## {service.replace('_', '-')}\n", _table(own)]
    return "\n".join(parts)


def _table(fields: Mapping[str, FieldInfo]) -> str:
    rows = ["| variable | values | default | meaning |", "| -- | -- | -- | -- |"]
    for name, field in fields.items():
        default = "**required**" if field.is_required() else _value(field.default)
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `ACCORD_{name.upper()}` | {_values(field)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _value(default: object) -> str:
    if default is None or default == "":
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _values(field: FieldInfo) -> str:
    """Its type in a word, or its values, and its bounds."""
    kind = _without_none(field.annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    words = {bool: "`true`, `false`", int: "number", float: "number", SecretStr: "secret"}.get(kind, "text")
    bounds = {
        name: getattr(part, name) for part in field.metadata for name in ("ge", "gt", "le") if hasattr(part, name)
    }
    signs = {"ge": "≥", "gt": "over", "le": "≤"}
    return " ".join([words, *(f"{signs[name]} {value}" for name, value in bounds.items())])


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(option for option in get_args(annotation) if option is not type(None))
    return annotation
