"""Exit codes: one table, total over the errors, as docs/semantics.md E1 has it."""

import errno
from collections.abc import Iterator

import pytest

from scopefs import errors
from scopefs.cli.exits import EXITS, to_exit_code

EXPECTED = {
    errors.InvalidScope: 2, errors.InvalidName: 2, errors.InvalidTime: 2, errors.InvalidQuery: 2,
    errors.InvalidBody: 2, errors.InvalidEnvelope: 2, errors.NotFound: 4, errors.Forbidden: 3,
    errors.VersionImmutable: 5, errors.Conflict: 5, errors.NameExists: 5, errors.PayloadMissing: 6,
    errors.PayloadCorrupt: 6, errors.TooLarge: 2, errors.NoSpace: 8, errors.NotAVault: 7,
    errors.NewerFormat: 7, errors.VaultInUse: 7, errors.IndexBroken: 7,
}  # fmt: skip


def walk(kind: type[errors.ScopefsError]) -> Iterator[type[errors.ScopefsError]]:
    """A class of errors and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from walk(below)


@pytest.mark.parametrize("kind", EXPECTED)
def test_error_has_the_exit_code_of_the_design(kind: type[errors.ScopefsError]) -> None:
    """Each row of the table of docs/semantics.md E1."""
    assert to_exit_code(kind("x")) == EXPECTED[kind]


def test_table_is_total() -> None:
    """Every error but the base itself has a class of its own or of its family in the table."""
    for kind in walk(errors.ScopefsError):
        family = [found for found in kind.__mro__ if found in EXITS]
        assert family[0] is not errors.ScopefsError or kind is errors.ScopefsError


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(errno.ENOSPC, "full"), 8), (OSError(errno.EDQUOT, "quota"), 8),
     (OSError(errno.EACCES, "no"), 7), (ValueError("unforeseen"), 1)],
)  # fmt: skip
def test_other_errors(error: Exception, code: int) -> None:
    """A full disk is 8, another refusal of the system 7, the unforeseen 1."""
    assert to_exit_code(error) == code
