"""Errors as HTTP wants them: one table, total over scopefs.errors.

What only HTTP knows has a table of its own: statuses without a class of error.
"""

from scopefs import errors

STATUSES: dict[type[errors.ScopefsError], tuple[int, str]] = {
    errors.InvalidScope: (400, "INVALID_SCOPE"),
    errors.InvalidTime: (400, "INVALID_TIMESTAMP"),
    errors.InvalidQuery: (400, "INVALID_QUERY"),
    errors.BadRequest: (400, "INVALID_BODY"),
    errors.NotFound: (404, "NOT_FOUND"),
    errors.MissingAuth: (401, "MISSING_AUTH"),
    errors.Forbidden: (403, "FORBIDDEN"),
    errors.VersionImmutable: (405, "METHOD_NOT_ALLOWED"),
    errors.Conflict: (409, "CONFLICT"),
    errors.TooLarge: (413, "CONTENT_TOO_LARGE"),
    errors.NoSpace: (507, "NO_SPACE"),
    errors.PayloadMissing: (500, "BLOB_MISSING"),
    errors.Damaged: (500, "BLOB_CORRUPT"),
    errors.Unavailable: (503, "UNAVAILABLE"),
    errors.ScopefsError: (500, "INTERNAL_ERROR"),
}

HTTP_CODES = {
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "TIMEOUT",
    416: "RANGE_NOT_SATISFIABLE",
}
"""Codes of what has no class: an unknown route or method, a body that stands still, a range."""


def to_status(error: BaseException) -> tuple[int, str]:
    """Status and code of any error: by class, the nearest ancestor in the table."""
    if isinstance(error, OSError):
        full = error.errno in errors.FULL_ERRNOS
        return STATUSES[errors.NoSpace] if full else STATUSES[errors.Unavailable]
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return STATUSES[errors.ScopefsError]
