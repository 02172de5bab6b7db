"""Every error that scopefs raises on purpose, sorted by who must act.

::

    ScopefsError
     ├── BadRequest                the caller must ask differently
     │    ├── InvalidScope         not source.category[.subcategory]
     │    ├── InvalidName          a file name that cannot be kept, or has no place there
     │    │    └── NameTooLong     more than 255 bytes
     │    ├── InvalidTime          not a time, or not a stamp
     │    ├── InvalidQuery         a limit, an offset, an option out of range
     │    ├── InvalidBody          a payload that this door does not take
     │    └── InvalidEnvelope      bytes that are no envelope of format 1.0
     ├── NotFound                  nothing there
     ├── Forbidden                 not allowed to this caller
     │    └── MissingAuth          nobody knows who the caller is
     ├── VersionImmutable          a version never changes
     ├── Conflict                  exists already, and differs
     │    ├── NameExists           a name is taken (EEXIST)
     │    ├── NotEmpty             a directory that still holds names
     │    ├── NotADirectory        a directory was needed
     │    ├── IsADirectory         a file was needed
     │    └── CrossesScopes        a name cannot leave its scope (EXDEV)
     ├── TooLarge                  over a limit that the message names
     ├── NoSpace                   the disk or the quota is full
     ├── Damaged                   the vault's bytes are wrong
     │    ├── PayloadMissing
     │    └── PayloadCorrupt
     └── Unavailable               the vault cannot serve now
          ├── NotAVault
          ├── NewerFormat
          ├── VaultInUse
          ├── NotWritable          this process may read it at most
          ├── IndexBroken
          ├── InvalidConfig        config.toml cannot be understood
          └── MountRefused

Each edge (mount, HTTP, command line) has one table that maps these classes to its own codes;
a test walks this tree and fails where a table has a hole. Messages say what happened, to what,
and what to do next.
"""

import errno

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where scopefs says `NoSpace`."""


class ScopefsError(Exception):
    """Base of all errors raised on purpose; `str(error)` is fit to be shown to a user."""


class BadRequest(ScopefsError):
    """The request itself is at fault; repeating it unchanged cannot help."""


class InvalidScope(BadRequest):
    """Text that is no scope; the message names the segment and the reason."""


class InvalidName(BadRequest):
    """A name that cannot be kept, or a place where such a thing cannot be."""


class InvalidTime(BadRequest):
    """Text that is no time, or no stamp."""


class InvalidQuery(BadRequest):
    """A limit, offset or option out of its range."""


class InvalidBody(BadRequest):
    """A payload that this door does not take."""


class InvalidEnvelope(BadRequest):
    """Bytes that are no envelope of version 1.0."""


class NameTooLong(InvalidName):
    """A name of more than 255 bytes."""


class NotFound(ScopefsError):
    """Nothing is there under that scope, stamp or name."""


class Forbidden(ScopefsError):
    """This caller may not do that."""


class MissingAuth(Forbidden):
    """No credential was given, or none that is known."""


class VersionImmutable(ScopefsError):
    """A version was about to be written, renamed, linked or truncated."""


class Conflict(ScopefsError):
    """What is there already stands in the way."""


class NameExists(Conflict):
    """The name is taken."""


class NotEmpty(Conflict):
    """The directory still holds names."""


class NotADirectory(Conflict):
    """A directory was needed here."""


class IsADirectory(Conflict):
    """A file was needed here."""


class CrossesScopes(Conflict):
    """A name belongs to its scope for life: copy, then remove."""


class TooLarge(ScopefsError):
    """Over a size limit; the message names the limit."""


class NoSpace(ScopefsError):
    """The disk or the quota under the vault is full."""


class Damaged(ScopefsError):
    """Stored bytes are missing or are not what was stored."""


class PayloadMissing(Damaged):
    """The file that holds the payload is not there."""


class PayloadCorrupt(Damaged):
    """The stored bytes do not have the recorded hash or shape."""


class Unavailable(ScopefsError):
    """The vault cannot be used now, by anyone."""


class NotAVault(Unavailable):
    """The directory holds no vault."""


class NewerFormat(Unavailable):
    """The vault was written by a newer scopefs than this one."""


class VaultInUse(Unavailable):
    """Somebody else holds what is needed alone; the message names the holder."""


class NotWritable(Unavailable):
    """The vault's directory cannot be written, by this process at least."""


class IndexBroken(Unavailable):
    """index.db is no readable index of this vault."""


class InvalidConfig(Unavailable):
    """config.toml is no TOML, or says what nobody understands; the message names the place."""


class MountRefused(Unavailable):
    """A mount cannot begin, or end; the message says why and what to do."""
