"""What hypothesis draws for the tests of the model."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from scopefs.model.stamps import MAX_US, SECOND_US

explore = settings(max_examples=200, deadline=None)

segments = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
scopes = st.lists(segments, min_size=2, max_size=3).map(".".join)

_fractions_us = st.one_of(
    st.just(0), st.integers(0, SECOND_US - 1), st.sampled_from((1, 9, 10, 100_000, SECOND_US - 1))
)
instants_us = st.builds(
    lambda second, fraction: second * SECOND_US + fraction,
    st.integers(-62_135_596_800, MAX_US // SECOND_US - 1),
    _fractions_us,
)
"""All that four-digit years can write, in microseconds."""

_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(_texts, _json_values, max_size=5)


def _encode(value: Any, ascii_only: bool, indent: int | None, blanks: tuple[str, str]) -> bytes:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    return f"{blanks[0]}{text}{blanks[1]}".encode()


_blanks = st.text(" \t\r\n", max_size=3)


def _in_many_forms(values: st.SearchStrategy[Any], blanks: st.SearchStrategy[str]) -> Any:
    return st.builds(
        _encode, values, st.booleans(), st.sampled_from((None, 0, 2)), st.tuples(blanks, blanks)
    )


json_object_texts = _in_many_forms(json_objects, st.just(""))
"""Texts of JSON objects without blanks around them, as bytes."""

json_texts = _in_many_forms(json_objects | _json_values, _blanks)
"""Texts of any JSON value, blanks around them, as bytes."""

_PIECES = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\\ud800", b"\\udc00", b"null",
    b"true", b"-", b"0", b"01", b".5", b"1e999", b"9" * 30, b"NaN", b"Infinity", b"\0", b"\x1f",
    b"\n", b" ", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"\\u00e9"', b"/*", b"'",
    b'"1.0"', b'"data":[]', b'"file":{}', b"18446744073709551616",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some places overwritten, removed or inserted."""
    content = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((0, 0, 1, 2, 8))))
        content[start:end] = draw(st.sampled_from(_PIECES) | st.binary(max_size=3))
    return bytes(content)
