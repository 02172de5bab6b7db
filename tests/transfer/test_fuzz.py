"""Whatever stands in an export's own files, it is read, or refused by the one error for it."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scopefs.errors import Conflict, InvalidBody, InvalidQuery
from scopefs.model.scope import parse_scope
from scopefs.transfer.exports import read_description
from scopefs.transfer.names import decode_names, encode_names
from tests.model.strategies import json_texts, mutated

fuzz = settings(max_examples=300 * int(os.environ.get("SCOPEFS_FUZZ", "1")), deadline=None)

DESCRIPTION = (
    b'{"format":1,"vault":"c9e64e79-af06-461b-aa3d-81cd3fc556e3",'
    b'"createdAt":"2026-11-20T22:45:05.404570Z"}\n'
)
NAMES = b"""\
{"kind":"scope","scope":"my.notes","mode":"0755","mtimeNs":1795222362617286000,"removed":false}
{"kind":"folder","name":"My Photos","mode":"0755","mtimeNs":1795222362415465000}
{"kind":"symlink","names":[{"name":"link"}],"target":"todo.txt","mtimeNs":1795218604359289000}
{"kind":"file","names":[{"name":"todo.txt"},{"nameHex":"ff"}],"mode":"0644","mtimeNs":17,\
"versions":{"2026-11-21T00-52-41Z":"\
e346432021b04179518d9614f3560ccd71354a4ee101ddcb893d6959a9d6301c"}}
"""
DEEP = b'{"kind":"file","names":' + b"[" * 100_000


@fuzz
@given(st.binary() | json_texts | mutated(st.just(DESCRIPTION)))
def test_any_bytes_are_a_description_or_none(content: bytes) -> None:
    """`Conflict`; or `InvalidQuery`, for an export of a newer scopefs."""
    try:
        found = read_description(content, "export.json")
    except (Conflict, InvalidQuery):
        return
    assert found.format <= 1


@fuzz
@given(st.binary() | json_texts | mutated(st.just(NAMES)))
def test_any_bytes_are_names_or_none(content: bytes) -> None:
    """`InvalidBody` alone; and what was read can be written and read again."""
    scope = parse_scope("my.notes")
    try:
        found = decode_names(content, scope)
    except InvalidBody:
        return
    written = encode_names(found)
    assert encode_names(decode_names(written, scope)) == written


@pytest.mark.parametrize("content", [DEEP, b"[" * 100_000, NAMES + DEEP])
def test_deep_nesting_is_refused(content: bytes) -> None:
    """However deep it is."""
    with pytest.raises(InvalidBody):
        decode_names(content, parse_scope("my.notes"))
    with pytest.raises(Conflict):
        read_description(content, "export.json")
