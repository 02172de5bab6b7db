"""Names and places: what may stand where in the tree that the mount shows.

::

    /                              root
    /instagram                     source
    /instagram/profile             scope instagram.profile
    /instagram/profile/shared      scope instagram.profile.shared (a valid segment at depth 3)
    /instagram/profile/My Photos   folder: any other directory below a scope
    /instagram/profile/a.json      file of scope instagram.profile

Names are bytes, kept exactly. Source: docs/semantics.md, P and N.
"""

import enum
from dataclasses import dataclass
from typing import NoReturn

from scopefs.errors import (
    CrossesScopes,
    IndexBroken,
    InvalidName,
    IsADirectory,
    NameExists,
    NameTooLong,
    NotADirectory,
    NotEmpty,
)
from scopefs.model.scope import Scope, find_segment_fault, is_segment, parse_scope, suggest_segment

NAME_MAX_BYTES = 255
VERSIONS_NAME = b".versions"
HISTORY_NAME = b".history"
CONTROL_NAME = b".scopefs"


class NodeKind(enum.IntEnum):
    """What a node of the tree is."""

    ROOT = 0
    SOURCE = 1
    SCOPE = 2
    FOLDER = 3
    FILE = 4
    SYMLINK = 5

    @property
    def is_directory(self) -> bool:
        return self <= NodeKind.FOLDER

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise IndexBroken(f"index.db names a kind that never was: {value!r}")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory, as far as naming cares: its kind and the scope segments that lead to it.

    Folders carry the segments of their scope.
    """

    kind: NodeKind
    segments: tuple[str, ...]

    @property
    def scope(self) -> Scope | None:
        """The scope that files here belong to; None at the root and in a source."""
        return None if self.kind <= NodeKind.SOURCE else parse_scope(".".join(self.segments))


ROOT_PLACE = Place(NodeKind.ROOT, ())


def check_name(name: bytes) -> None:
    """Refuse what no directory entry can be called. Raises `InvalidName`."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidName(f"{show_name(name)} is no file name")
    if len(name) > NAME_MAX_BYTES:
        raise NameTooLong(f"the name has {len(name)} bytes, more than {NAME_MAX_BYTES}")


def place_directory(parent: Place, name: bytes) -> Place:
    """The place that a directory `name` in `parent` is. Raises `InvalidName`."""
    check_name(name)
    text = name.decode("utf-8", "replace")
    if parent.kind <= NodeKind.SOURCE:
        fault = find_segment_fault(text)
        if fault is not None:
            level = "source" if parent.kind is NodeKind.ROOT else "category"
            raise InvalidName(
                f"the directory {text!r} cannot be a {level}: it {fault}; "
                f"try {suggest_segment(text)!r}"
            )
        kind = NodeKind.SOURCE if parent.kind is NodeKind.ROOT else NodeKind.SCOPE
        return Place(kind, (*parent.segments, text))
    _check_not_reserved(parent, name)
    if parent.kind is NodeKind.SCOPE and len(parent.segments) == 2 and is_segment(text):
        return Place(NodeKind.SCOPE, (*parent.segments, text))
    return Place(NodeKind.FOLDER, parent.segments)


def check_file_place(parent: Place, name: bytes) -> Scope:
    """The scope of a file or symlink `name` in `parent`. Raises `InvalidName`."""
    check_name(name)
    scope = parent.scope
    if scope is None:
        where = "at the root" if parent.kind is NodeKind.ROOT else "directly in a source"
        raise InvalidName(
            f"{show_name(name)} cannot be {where}: a file lives two lower-case levels down, "
            "in SOURCE/CATEGORY/"
        )
    _check_not_reserved(parent, name)
    return scope


def plan_rename(
    source: tuple[Place, NodeKind, bool], target_parent: Place, name: bytes,
    target: tuple[NodeKind, bool] | None, *, replace: bool = True,
) -> Place | None:  # fmt: skip
    """Decide whether an entry may be renamed, and what it is under its new name.

    `source` is the place of the entry's own directory, its kind, and whether it is an empty
    directory; `target` the kind and emptiness of what bears the new name already. Returns the
    entry's new place if it is a directory, else None. Raises `CrossesScopes` wherever a tool has
    to copy instead (EXDEV), and the usual refusals of rename(2).
    """
    place, kind, is_empty = source
    if not kind.is_directory:
        check_file_place(target_parent, name)
        if target_parent.segments != place.segments:
            raise CrossesScopes(
                f"{show_name(name)}: a file cannot be renamed into another scope: copy it"
            )
        new_place = None
    else:
        new_place = place_directory(target_parent, name)
        if (new_place.kind, new_place.segments) != (kind, place.segments) and not is_empty:
            raise CrossesScopes(
                f"{show_name(name)}: what a scope holds cannot be renamed to another: copy it"
            )
    if target is not None:
        target_kind, target_is_empty = target
        if not replace:
            raise NameExists(f"{show_name(name)} exists already")
        if kind.is_directory and not target_kind.is_directory:
            raise NotADirectory(f"{show_name(name)} is a file: a directory cannot replace it")
        if target_kind.is_directory and not kind.is_directory:
            raise IsADirectory(f"{show_name(name)} is a directory: a file cannot replace it")
        if not target_is_empty:
            raise NotEmpty(f"{show_name(name)} is not empty")
    return new_place


def show_name(name: bytes) -> str:
    """A name for messages: quoted, with whatever is not UTF-8 escaped."""
    return repr(name.decode("utf-8", "backslashreplace"))


def _check_not_reserved(parent: Place, name: bytes) -> None:
    if parent.kind is NodeKind.SCOPE and name in (VERSIONS_NAME, HISTORY_NAME):
        raise InvalidName(f"{show_name(name)} shows the scope's history: nothing can be made there")
