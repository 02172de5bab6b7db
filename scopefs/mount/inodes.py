"""Inode numbers: what they mean, without a table.

The upper bits name the class, the lower 40 the id within it, so that numbers stay the same over
remounts and nothing is kept in memory for the inodes that the kernel knows.
"""

import enum

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


def encode_inode(kind: InodeClass, number: int) -> int:
    """The inode number of an id in a class."""
    return (kind << _SHIFT) | number


def decode_inode(inode: int) -> tuple[InodeClass, int]:
    """The class of an inode number, and the id in it. Raises `ValueError` if there is none."""
    return InodeClass(inode >> _SHIFT), inode & _MASK
