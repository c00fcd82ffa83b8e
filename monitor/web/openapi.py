"""The OpenAPI 3.1 document, made from the tables of parameters and the types of the answers. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from monitor.web.answers import ErrorAnswer
from monitor.web.parameters import Parameter

_REFERENCE: Final = "#/components/schemas/{name}"
_FAILURES: Final = {
    400: "The question cannot be answered as it stands; `error.field` names the parameter to change.",
    403: "This principal may not see that.",
    503: "The store cannot be read now; ask again after Retry-After.",
}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One address: what it is for, what it takes, what it answers with."""

    path: str
    about: str
    parameters: Sequence[Parameter]
    answer: type[msgspec.Struct]


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document as JSON's own types."""
    types = [*(each.answer for each in operations), ErrorAnswer]
    references, schemas = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    paths = {
        each.path: {"get": _operation(each, reference, references[-1])}
        for each, reference in zip(operations, references, strict=False)
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wattribute",
            "version": version,
            "description": "Energy of AI inference by model and team. Units are the ends of names; null is unknown.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(each: Operation, answer: Mapping[str, Any], failure: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "operationId": each.path.rpartition("/")[2],
        "summary": each.about,
        "parameters": [_parameter(parameter) for parameter in each.parameters],
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
            **{
                str(code): {"description": about, "content": {"application/json": {"schema": failure}}}
                for code, about in _FAILURES.items()
            },
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    default = {} if parameter.default in (None, "") else {"default": _typed(parameter)}
    example = {} if parameter.example is None else {"example": parameter.example}
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.about,
        "schema": {**parameter.schema, **default},
        **example,
    }


def _typed(parameter: Parameter) -> str | int:
    default = parameter.default or ""
    return int(default) if parameter.schema["type"] == "integer" else default
