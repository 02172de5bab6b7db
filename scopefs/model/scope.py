"""Scopes: `source.category[.subcategory]`, the address of a kind of data.

Source: docs/semantics.md, P1.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from scopefs.errors import InvalidScope

MAX_SEGMENT_BYTES = 255
"""A segment is a directory name on disk."""

_SEGMENT = re.compile(r"[a-z][a-z0-9_]*\Z")
_ODD_CHARACTER = re.compile(r"[^a-z0-9_]")


@dataclass(frozen=True, slots=True)
class Scope:
    """A valid scope. `raw` is the text that was parsed: the three parts joined by dots."""

    source: str
    category: str
    subcategory: str | None
    raw: str

    @property
    def segments(self) -> tuple[str, ...]:
        """The two or three segments, in order."""
        head = (self.source, self.category)
        return head if self.subcategory is None else (*head, self.subcategory)

    def __str__(self) -> str:
        return self.raw


def is_segment(text: str) -> bool:
    """Whether `text` may be one segment of a scope."""
    return len(text) <= MAX_SEGMENT_BYTES and _SEGMENT.match(text) is not None


def find_segment_fault(segment: str) -> str | None:
    """Why `segment` cannot be part of a scope, as the end of a sentence; None if it can."""
    if not segment:
        return "is empty"
    if len(segment) > MAX_SEGMENT_BYTES:
        return f"has {len(segment)} characters, more than {MAX_SEGMENT_BYTES}"
    odd = _ODD_CHARACTER.search(segment)
    if odd is not None:
        character = odd.group()
        if character.isascii() and character.isalpha():
            return f"has the capital letter {character!r}: use lower case"
        return f"has {character!r}: only a-z, 0-9 and _ may stand there"
    if not _SEGMENT.match(segment):
        return f"starts with {segment[0]!r}: it must start with a letter a-z"
    return None


@lru_cache(maxsize=1024)
def parse_scope(scope: str) -> Scope:
    """Parse `source.category[.subcategory]`.

    Raises `InvalidScope`, whose message says which segment is wrong, and why.
    """
    segments = scope.split(".")
    for position, segment in enumerate(segments, start=1):
        fault = find_segment_fault(segment)
        if fault is not None:
            raise InvalidScope(
                f"scope {_shorten(scope)!r}: segment {position} ({_shorten(segment)!r}) {fault}"
            )
    if not 2 <= len(segments) <= 3:
        raise InvalidScope(
            f"scope {_shorten(scope)!r} has {len(segments)} segment(s): "
            "it must be source.category or source.category.subcategory"
        )
    return Scope(segments[0], segments[1], segments[2] if len(segments) == 3 else None, scope)


def scope_to_path_segments(scope: str) -> list[str]:
    """The directory names of a scope, outermost first. Raises `InvalidScope`."""
    return list(parse_scope(scope).segments)


def suggest_segment(text: str) -> str:
    """A valid segment close to `text`, for messages that propose a corrected command."""
    lowered = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
    if not lowered:
        return "files"
    if not lowered[0].isalpha():
        lowered = f"from_{lowered}"
    return lowered[:MAX_SEGMENT_BYTES]


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
