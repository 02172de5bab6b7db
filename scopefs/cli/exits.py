"""Errors as exit codes: one table, total over scopefs.errors."""

import errno

from scopefs import errors

EXITS: dict[type[errors.ScopefsError], int] = {
    errors.BadRequest: 2,
    errors.NotFound: 4,
    errors.Forbidden: 3,
    errors.VersionImmutable: 5,
    errors.Conflict: 5,
    errors.Damaged: 6,
    errors.TooLarge: 2,
    errors.NoSpace: 8,
    errors.Unavailable: 7,
    errors.ScopefsError: 1,
}


_ERRNOS: dict[int, type[errors.ScopefsError]] = {
    errno.ENOSPC: errors.NoSpace,
    errno.EDQUOT: errors.NoSpace,
    errno.EEXIST: errors.Conflict,
    errno.ENOENT: errors.NotFound,
}


def to_exit_code(error: BaseException) -> int:
    """The exit code of any error: by class, the nearest ancestor in the table."""
    if isinstance(error, OSError):
        return EXITS[_ERRNOS.get(error.errno or 0, errors.Unavailable)]
    for kind in type(error).__mro__:
        if kind in EXITS:
            return EXITS[kind]
    return EXITS[errors.ScopefsError]
