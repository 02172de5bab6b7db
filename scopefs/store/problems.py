"""What a check finds: one problem, said so that its owner can act."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it must be."""

    code: str
    """Of a check: the number of the invariant that does not hold, `I1`. Of a rebuild: a word."""
    where: str
    """A path relative to the vault, or a row of the index (`data_files 17`)."""
    what: str
    """What is wrong with it."""
    do: str
    """What to do about it."""
