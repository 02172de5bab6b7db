"""Every error has its place at every edge."""

import errno

import pytest

from scopefs import errors
from scopefs.api.statuses import STATUSES, to_status
from scopefs.cli.exits import EXITS, to_exit_code
from scopefs.errors import ScopefsError
from scopefs.mount.errnos import ERRNOS, to_errno


def list_classes(root: type[ScopefsError] = ScopefsError) -> list[type[ScopefsError]]:
    """An error class and all below it."""
    return [root, *(leaf for child in root.__subclasses__() for leaf in list_classes(child))]


# Errors that other modules define are in it as far as they are imported here.
CLASSES = list_classes()
E = errno

# docs/semantics.md E1, row by row; what stands below a class has the codes of its row.
TABLE: dict[type[ScopefsError], tuple[int, tuple[int, str], int]] = {
    errors.InvalidScope: (E.EINVAL, (400, "INVALID_SCOPE"), 2),
    errors.InvalidBody: (E.EINVAL, (400, "INVALID_BODY"), 2),
    errors.InvalidQuery: (E.EINVAL, (400, "INVALID_QUERY"), 2),
    errors.InvalidTime: (E.EINVAL, (400, "INVALID_TIMESTAMP"), 2),
    errors.NotFound: (E.ENOENT, (404, "NOT_FOUND"), 4),
    errors.Forbidden: (E.EACCES, (403, "FORBIDDEN"), 3),
    errors.MissingAuth: (E.EACCES, (401, "MISSING_AUTH"), 3),
    errors.VersionImmutable: (E.EPERM, (405, "METHOD_NOT_ALLOWED"), 5),
    errors.NameExists: (E.EEXIST, (409, "CONFLICT"), 5),
    errors.Conflict: (E.EEXIST, (409, "CONFLICT"), 5),
    errors.PayloadMissing: (E.EIO, (500, "BLOB_MISSING"), 6),
    errors.PayloadCorrupt: (E.EIO, (500, "BLOB_CORRUPT"), 6),
    errors.TooLarge: (E.EFBIG, (413, "CONTENT_TOO_LARGE"), 2),
    errors.NoSpace: (E.ENOSPC, (507, "NO_SPACE"), 8),
    errors.Unavailable: (E.EIO, (503, "UNAVAILABLE"), 7),
    errors.NotAVault: (E.EIO, (503, "UNAVAILABLE"), 7),
    errors.NewerFormat: (E.EIO, (503, "UNAVAILABLE"), 7),
    errors.VaultInUse: (E.EIO, (503, "UNAVAILABLE"), 7),
    errors.IndexBroken: (E.EIO, (503, "UNAVAILABLE"), 7),
    ScopefsError: (E.EIO, (500, "INTERNAL_ERROR"), 1),
}

EDGES = {"errnos": ERRNOS, "statuses": STATUSES, "exits": EXITS}


def test_docstring_draws_the_tree() -> None:
    """The tree in the docstring has every class of the module, under its parent."""
    drawn: dict[str, str] = {}
    above = {-1: "ScopefsError"}
    for line in (errors.__doc__ or "").splitlines():
        branch, mark, rest = line.partition("── ")
        if mark:
            name = rest.split()[0]
            above = {column: upper for column, upper in above.items() if column < len(branch)}
            drawn[name] = above[max(above)]
            above[len(branch)] = name
    own = [kind for kind in CLASSES[1:] if kind.__module__ == errors.__name__]
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in own}


@pytest.mark.parametrize("edge", EDGES)
def test_table_has_no_hole(edge: str) -> None:
    """Each class has an entry, or one of its ancestors below the root has."""
    table = EDGES[edge]
    holes = [
        kind.__name__
        for kind in CLASSES
        if kind is not ScopefsError
        and not any(base in table for base in kind.__mro__[: kind.__mro__.index(ScopefsError)])
    ]
    assert holes == []
    assert ScopefsError in table


@pytest.mark.parametrize("edge", EDGES)
def test_table_names_errors_only(edge: str) -> None:
    """No entry is of a class that is no longer in the tree."""
    assert set(EDGES[edge]) <= set(CLASSES)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_codes_are_those_of_the_design(kind: type[ScopefsError]) -> None:
    """Each row of docs/semantics.md E1 gives errno, HTTP status and code, and exit code."""
    error = kind("x")
    assert (to_errno(error), to_status(error), to_exit_code(error)) == TABLE[kind]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_at_every_edge(kind: type[ScopefsError]) -> None:
    """No class falls through: an errno that exists, a status of 400 to 599, an exit code."""
    error = kind("x")
    assert to_errno(error) in errno.errorcode
    status, code = to_status(error)
    assert 400 <= status < 600
    assert code == code.upper() != ""
    assert 1 <= to_exit_code(error) <= 8


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_new_error_takes_the_code_of_its_parent(kind: type[ScopefsError]) -> None:
    """A class that no table knows yet is treated as the nearest that it knows."""
    child = type("Child", (kind,), {})
    assert to_errno(child("x")) == to_errno(kind("x"))
    assert to_status(child("x")) == to_status(kind("x"))
    assert to_exit_code(child("x")) == to_exit_code(kind("x"))
    # The class must not outlive the test: others walk the tree.
    del child


def test_the_unexpected_is_an_internal_error() -> None:
    """Anything else is EIO, 500, and exit code 1."""
    error = ValueError("x")
    assert to_errno(error) == errno.EIO
    assert to_status(error) == (500, "INTERNAL_ERROR")
    assert to_exit_code(error) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_no_space(code: int) -> None:
    """The system's own errors of a full disk or quota are those of NoSpace."""
    error = OSError(code, "full")
    assert to_errno(error) == code
    assert to_status(error) == (507, "NO_SPACE")
    assert to_exit_code(error) == 8


def test_error_of_the_disk_is_passed_on() -> None:
    """Other errors of the system keep their errno, and are unavailability elsewhere."""
    error = OSError(errno.EROFS, "read-only")
    assert to_errno(error) == errno.EROFS
    assert to_status(error) == (503, "UNAVAILABLE")
    assert to_exit_code(error) == 7
