"""The pydantic model beside a struct: it checks what others send, says what is wrong with it, and describes it in a schema."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any, get_type_hints

from msgspec import NODEFAULT, Struct
from msgspec.structs import asdict, fields
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidatorFunctionWrapHandler, create_model
from pydantic_core import CoreSchema, core_schema


def struct_schema(struct: type[Struct], handler: GetCoreSchemaHandler) -> CoreSchema:
    """How pydantic reads and writes `struct`: an instance as it is, anything else by its model."""
    model = model_of(struct)
    schema = handler.generate_schema(model)

    def read(value: object, validate: ValidatorFunctionWrapHandler) -> Struct:
        return value if isinstance(value, struct) else struct(**validate(value).__dict__)

    def write(value: Struct) -> BaseModel:
        return model.model_construct(**asdict(value))

    return core_schema.no_info_wrap_validator_function(
        read, schema, serialization=core_schema.plain_serializer_function_ser_schema(write, return_schema=schema)
    )


@cache
def model_of(struct: type[Struct]) -> type[BaseModel]:
    """The model with the fields, bounds and descriptions of `struct`. It forbids unknown fields."""
    types = get_type_hints(struct, include_extras=True)
    described = _field_docstrings(struct)
    declared: dict[str, Any] = {}
    for field in fields(struct):
        given: dict[str, Any] = {"description": described.get(field.name)}
        if field.default is not NODEFAULT:
            given["default"] = field.default
        elif field.default_factory is not NODEFAULT:
            given["default_factory"] = field.default_factory
        declared[field.name] = (types[field.name], Field(**given))
    return create_model(
        struct.__name__,
        __config__=ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False),
        __doc__=struct.__doc__,
        __module__=struct.__module__,
        **declared,
    )


def _field_docstrings(struct: type[Struct]) -> dict[str, str]:
    """The string that follows a field's declaration, of the struct and its bases, by the field's name."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__[: struct.__mro__.index(Struct)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = inspect.cleandoc(words)
    return found
