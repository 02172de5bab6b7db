"""Inode numbers: what they mean, without a table.

The upper bits name the class, the lower 40 the id within it, so that numbers stay the same over
remounts and nothing is kept in memory for the inodes that the kernel knows.
"""

import enum
import itertools
from typing import Generic, TypeVar

from scopefs.errors import NotFound

_Path = TypeVar("_Path")

_SHIFT = 40
_MASK = (1 << _SHIFT) - 1


class InodeClass(enum.IntEnum):
    """What an inode number stands for; in brackets, what its id is."""

    TREE = 0
    """A node of the tree (node)."""
    ENVELOPE = 1
    """A version in `.versions/` (version)."""
    PAYLOAD = 2
    """A version in `.history/NAME/` (version)."""
    VERSIONS = 3
    """`.versions` of a scope (node of the scope)."""
    HISTORY = 4
    """`.history` of a scope (node of the scope)."""
    NAME_HISTORY = 5
    """`.history/NAME`: of a file, a folder or both (number given by Views)."""
    LATEST = 6
    """`.versions/latest.json` (node of the scope)."""
    NAME_LATEST = 7
    """`.history/NAME/latest.*` (number given by Views)."""
    CONTROL = 8
    """`.scopefs` and what it holds (scopefs.mount.control)."""
    TRASH = 9
    """`.scopefs/trash` and all below it (number given by TrashView)."""
    PARTIAL = 10
    """`.scopefs/partial` and the files in it (number given by PartialView)."""
    IMPORT = 11
    """A version that is being written into `.versions/` (number given by Imports)."""


_CLASSES = tuple(InodeClass)
"""By their numbers; an enumeration's own way takes ten times as long."""


def encode_inode(kind: InodeClass, number: int) -> int:
    """The inode number of an id in a class."""
    return (kind << _SHIFT) | number


def decode_inode(inode: int) -> tuple[InodeClass, int]:
    """The class of an inode number, and the id in it. Raises `IndexError` if there is none."""
    return _CLASSES[inode >> _SHIFT], inode & _MASK


PATHS_MAX = 100_000
"""Paths that are remembered; the kernel looks older ones up again."""


class PathNumbers(Generic[_Path]):
    """Numbers for the paths of a view, given when they are asked for; the root's is 1."""

    def __init__(self, root: _Path) -> None:
        self._root = root
        self._free = itertools.count(2)
        self._paths: dict[int, _Path] = {}
        self._numbers: dict[_Path, int] = {}

    def get(self, path: _Path) -> int:
        """The number of a path, the same as long as it is remembered."""
        if path == self._root:
            return 1
        known = self._numbers.get(path)
        if known is None:
            known = self._numbers[path] = next(self._free)
            self._paths[known] = path
            if len(self._paths) > PATHS_MAX:
                del self._numbers[self._paths.pop(next(iter(self._paths)))]
        return known

    def load(self, number: int) -> _Path:
        """The path that has a number. Raises `NotFound` if it is not remembered any more."""
        if number == 1:
            return self._root
        path = self._paths.get(number)
        if path is None:
            raise NotFound("this is to be looked up again")
        return path
