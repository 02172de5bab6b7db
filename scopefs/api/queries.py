"""Reading what stands in requests beside their bodies: escapes, numbers, names, ranges.

Text becomes a type here, and no bare string goes further. Raises `InvalidQuery`,
`InvalidBody`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from scopefs.errors import InvalidBody, InvalidQuery, NotFound

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
OFFSET_MAX = (1 << 63) - 1
METADATA_MAX_BYTES = 8192

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_WHOLE = re.compile(r"[0-9]{1,19}\Z", re.ASCII)
_RANGE = re.compile(r"bytes=\s*(\d{0,999})-(\d{0,999})\s*\Z", re.ASCII | re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([\w!#$&+.^`|~*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)\Z", re.IGNORECASE | re.DOTALL)
_MEDIA_TYPE = re.compile(r"[\w.+!#$&^-]{1,127}/[\w.+!#$&^-]{1,127}(?:\s*;[\x20-\x7e]{0,127})?\Z",
                         re.ASCII)  # fmt: skip


def check_escapes(raw: bytes) -> None:
    """Refuse a path or a query with a `%` that begins no escape."""
    if _BAD_ESCAPE.search(raw):
        raise InvalidQuery("a % in the address begins no escape: write it as %25")


def parse_query(raw: bytes, known: Iterable[str]) -> dict[str, str]:
    """The parameters of a query: each known, and given once."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32
        )
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidQuery(f"the query cannot be read: {error}") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise InvalidQuery(
                f"{name[:60]!r} is no parameter here; known: {', '.join(known) or 'none'}"
            )
        if name in found:
            raise InvalidQuery(f"{name!r} is given more than once")
        found[name] = value
    return found


def parse_whole(text: str, name: str, least: int, most: int) -> int:
    """A whole number in a range."""
    if not _WHOLE.match(text) or not least <= int(text) <= most:
        raise InvalidQuery(f"{name} {text[:60]!r}: it must be a whole number, {least} to {most}")
    return int(text)


def parse_page(query: Mapping[str, str]) -> tuple[int, int]:
    """`limit` and `offset`."""
    limit = parse_whole(query.get("limit", str(LIMIT_DEFAULT)), "limit", 1, LIMIT_MAX)
    return limit, parse_whole(query.get("offset", "0"), "offset", 0, OFFSET_MAX)


def parse_name_of(raw_path: bytes) -> bytes:
    """The name that an escaped path ends with, byte for byte. Raises `NotFound`."""
    _, mark, name = raw_path.partition(b"/names/")
    if not mark:
        raise NotFound("there is no such route")
    return unquote_to_bytes(name)


def parse_media_type(text: str | None) -> str | None:
    """A `Content-Type` that says something; None for one that says nothing, or is none."""
    if text is None or not _MEDIA_TYPE.match(text.strip()):
        return None
    plain = text.partition(";")[0].strip().lower()
    # What curl and browsers send unasked.
    silent = ("application/octet-stream", "application/x-www-form-urlencoded")
    return None if plain in silent else text.strip()


def show_media_type(stored: str | None) -> str:
    """A stored media type as a header; whatever is none is only bytes."""
    return stored if stored and _MEDIA_TYPE.match(stored) else "application/octet-stream"


def is_json(content_type: str | None) -> bool:
    """Whether a body is announced as JSON, or as nothing."""
    if content_type is None or not content_type.strip():
        return True
    return content_type.partition(";")[0].strip().lower() == "application/json"


def parse_file_name(headers: Mapping[str, str]) -> bytes | None:
    """The name that a blob is to have: `X-Filename`, else that of `Content-Disposition`.

    Bytes as they stand there, or escaped after a character set, as RFC 8187 has it:
    `UTF-8''caf%C3%A9.txt`.
    """
    given = headers.get("x-filename")
    if given is not None:
        return _decode_extended(given) if _EXTENDED.match(given) else given.encode("latin-1")
    found = {
        key.lower(): value
        for key, value in _PARAMETER.findall(headers.get("content-disposition", ""))
    }
    if "filename*" in found:
        name = _decode_extended(found["filename*"])
    elif "filename" in found:
        text = found["filename"]
        if text.startswith('"'):
            text = re.sub(r"\\(.)", r"\1", text[1:-1])
        name = text.encode("latin-1")
    else:
        return None
    # Senders mean the last part: a path would name places on their machines.
    return name.replace(b"\\", b"/").rpartition(b"/")[2]


def _decode_extended(text: str) -> bytes:
    match = _EXTENDED.match(text)
    if match is None or _BAD_ESCAPE.search(text.encode("latin-1")):
        raise InvalidBody(f"{text[:60]!r} is no file name of RFC 8187: write UTF-8''caf%C3%A9.txt")
    raw = unquote_to_bytes(match[2])
    return raw if match[1].lower() == "utf-8" else raw.decode("latin-1").encode("utf-8")


def parse_metadata(text: str | None) -> str | None:
    """`X-Metadata` as it came."""
    if text is None:
        return None
    raw = text.encode("latin-1")
    if len(raw) > METADATA_MAX_BYTES:
        raise InvalidBody(f"X-Metadata has {len(raw)} bytes, more than {METADATA_MAX_BYTES}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return text


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a payload: from `start`, `size` bytes."""

    start: int
    size: int


class Unsatisfiable(Exception):
    """A range that begins behind the end."""


def parse_range(text: str | None, total: int) -> Span | None:
    """The one range that is asked for; None for none, several, or one that is none.

    Raises `Unsatisfiable`.
    """
    match = _RANGE.match(text.strip()) if text else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        size = min(int(match[2]), total)
        if not size:
            raise Unsatisfiable
        return Span(total - size, size)
    start = int(match[1])
    end = min(int(match[2]), total - 1) if match[2] else total - 1
    if match[2] and int(match[2]) < start:
        return None
    if start >= total:
        raise Unsatisfiable
    return Span(start, end - start + 1)


def matches_etag(lines: Iterable[str], etag: str) -> bool:
    """Whether an `If-None-Match`, which may have several lines, names an ETag, weakly or not."""
    tags = [tag.strip().removeprefix("W/") for line in lines for tag in line.split(",")]
    return etag in tags or "*" in tags
