"""/openapi.json, made from the table of paths and the structs of scopefs.api.wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from scopefs import __version__
from scopefs.api import wire

_REFERENCE = "#/components/schemas/{name}"
_SCOPE = {"type": "string", "maxLength": 767,
          "pattern": r"^[a-z][a-z0-9_]{0,254}(\.[a-z][a-z0-9_]{0,254}){1,2}$"}  # fmt: skip
_NAME = {"type": "string", "minLength": 1}
_ERRORS = {
    400: "The request is at fault.", 401: "No credential, or one that is not known.",
    403: "Not for this credential, host or origin.", 404: "Nothing is there.",
    408: "The body stood still.", 409: "Something else is there, or the key was another's.",
    413: "Too large.", 416: "The range begins behind the end.", 500: "The payload is damaged.",
    503: "The vault cannot be used.", 507: "The disk is full.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query, or a header."""

    name: str
    place: str
    schema: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What may be answered. `media_type`: of what is no JSON."""

    text: str
    body: type[msgspec.Struct] | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=False)
class Described:
    """What the description says about an operation."""

    method: str
    path: str
    summary: str
    answers: Mapping[int, Answer]
    parameters: Sequence[Parameter] = field(default=(), kw_only=True)
    bodies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)


def describe(operations: Sequence[Described]) -> dict[str, Any]:
    """The description of all operations."""
    structs = {
        answer.body for operation in operations for answer in operation.answers.values()
        if answer.body is not None
    } | {wire.ErrorBody}  # fmt: skip
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    references = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, Any] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {})
        path[operation.method.lower()] = _describe(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "scopefs", "version": __version__,
                 "description": "The HTTP door of a personal data vault: see docs/http.md."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }  # fmt: skip


def _describe(operation: Described, references: Mapping[type, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        responses[str(status)] = {
            "description": answer.text,
            **_describe_content(answer, references),
        }
    for status, text in _ERRORS.items():
        content = {"application/json": {"schema": references[wire.ErrorBody]}}
        responses[str(status)] = {"description": text, "content": content}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in (("scope", _SCOPE), ("name", _NAME)) if f"{{{name}}}" in operation.path
    ] + [
        {"name": parameter.name, "in": parameter.place, "schema": parameter.schema,
         "description": parameter.text}
        for parameter in operation.parameters
    ]  # fmt: skip
    found: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{operation.path.title()}".translate(_NO_MARKS),
        "parameters": parameters,
        "responses": responses,
    }
    if operation.path == "/health":
        found["security"] = []
    if operation.bodies:
        content = {kind: {"schema": schema} for kind, schema in operation.bodies.items()}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _describe_content(answer: Answer, references: Mapping[type, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.media_type is not None:
        content[answer.media_type] = {}
    if answer.body is not None and answer.media_type != "*/*":
        content["application/json"] = {"schema": references[answer.body]}
    return {"content": content} if content else {}


_NO_MARKS = {ord(mark): None for mark in "/{}-."}
