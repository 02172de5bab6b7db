"""Errors as the kernel wants them: one table, total over scopefs.errors."""

import errno

from scopefs import errors

ERRNOS: dict[type[errors.ScopefsError], int] = {
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.InvalidName: errno.EINVAL,
    errors.BadRequest: errno.EINVAL,
    errors.NotFound: errno.ENOENT,
    errors.Forbidden: errno.EACCES,
    errors.VersionImmutable: errno.EPERM,
    errors.NameExists: errno.EEXIST,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.CrossesScopes: errno.EXDEV,
    errors.Conflict: errno.EEXIST,
    errors.TooLarge: errno.EFBIG,
    errors.NoSpace: errno.ENOSPC,
    errors.Damaged: errno.EIO,
    errors.Unavailable: errno.EIO,
    errors.ScopefsError: errno.EIO,
}


def to_errno(error: BaseException) -> int:
    """The errno of any error: by class, the nearest ancestor in the table; EIO for the unknown."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    for kind in type(error).__mro__:
        if kind in ERRNOS:
            return ERRNOS[kind]
    return errno.EIO


def is_expected(error: BaseException) -> bool:
    """Whether an error was raised on purpose, or by the disk: such need no trace in the log."""
    return isinstance(error, errors.ScopefsError | OSError)
