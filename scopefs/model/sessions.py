"""Sessions: when a write of a file is finished, and what becomes of it.

A session is opened by the first change of a file's content (a write, a truncation, a change of
size) and ends when the last handle that wrote is released. One session is one user action, and
makes one version at most. Source: docs/semantics.md, S.
"""

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What becomes of a session, or of a file that was only created."""

    NOTHING = "nothing"
    """Nothing changed that is to be recorded."""
    RECORD = "record"
    """One new version; or the name shows an empty file, or a scratch file: no version."""
    KEEP_PARTIAL = "keep partial"
    """A write failed, or its writer was killed: the bytes go to partial/, the name keeps its last
    version.
    """
    DROP = "drop"
    """The last name was unlinked before the close: the bytes go with it."""


@dataclass(frozen=True, slots=True)
class FailedWrite:
    """A write that failed: where, how long (-1: a change of size), and the errno."""

    offset: int
    size: int
    errno: int

    def is_repeated_by(self, offset: int, size: int) -> bool:
        """Whether a later, successful write covers all of it."""
        return (
            self.size >= 0 and offset <= self.offset and (offset + size >= self.offset + self.size)
        )


def plan_release(
    *, has_session: bool, is_recorded: bool, is_unlinked: bool, failed: bool
) -> Outcome:
    """Decide what becomes of a file whose last writer was released.

    `has_session`: whether content was changed at all. `is_recorded`: whether the index knows the
    file's name. `failed`: whether a write failed, or its writer was killed.
    """
    if is_unlinked:
        return Outcome.DROP
    if not has_session:
        return Outcome.NOTHING if is_recorded else Outcome.RECORD
    return Outcome.KEEP_PARTIAL if failed else Outcome.RECORD
