"""What stands behind `-o`: options as mount(8) and /etc/fstab write them.

Those of scopefs are options of scopefs.store.config, by their last name (`durability=relaxed`,
`no_read_check`), and a few that one mount alone can have (`ro`, `uid=`, `gid=`, `umask=`). What
mount(8) itself handles is passed over; what the kernel knows is passed on. Raises `InvalidQuery`.
"""

import grp
import pwd
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scopefs.errors import InvalidConfig, InvalidQuery
from scopefs.store.config import OPTIONS, Option, nearest

if TYPE_CHECKING:
    from scopefs.mount.attributes import Ownership

CONFIGURED = {
    option.key: option
    for option in OPTIONS.values()
    if option.table == "mount" or option.name in ("limits.max_file_bytes", "trash.keep_days")
}
"""Options of the configuration that can stand behind `-o`."""

_FOR_KERNEL = {"noexec", "noatime", "nodiratime", "sync", "dirsync"}
_PASSED_OVER = {
    "", "defaults", "auto", "noauto", "nofail", "user", "nouser", "users", "owner", "group",
    "_netdev", "suid", "nosuid", "dev", "nodev", "exec", "async", "atime", "diratime", "relatime",
    "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "loud", "silent",
    "iversion", "noiversion", "mand", "nomand",
}  # fmt: skip
"""Of mount(8), and what changes nothing here: there are no devices, no set-user-ID and no atime."""

_PASSED_OVER_KEYS = {"user", "comment", "uhelper", "helper"}
_OWN = ("ro", "rw", "uid", "gid", "umask")


@dataclass
class MountWords:
    """What was asked for behind `-o`."""

    read_only: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    for_kernel: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    """Values of options of the configuration, by their full names."""

    def ownership(self) -> "Ownership":
        from scopefs.mount.attributes import Ownership

        return Ownership(self.uid, self.gid, self.umask)


def parse_mount_options(texts: tuple[str, ...], *, sloppy: bool = False) -> MountWords:
    """Read what stood behind each `-o`; of words that contradict each other the last counts.

    `sloppy`: what is unknown is passed over (`mount -s`).
    """
    words = MountWords()
    for word in ",".join(texts).split(","):
        key, equals, value = word.partition("=")
        if not equals and word in _PASSED_OVER:
            continue
        if key.startswith(("x-", "X-")) or (equals and key in _PASSED_OVER_KEYS):
            continue
        if not equals and word in _FOR_KERNEL:
            words.for_kernel.append(word)
        elif not equals and word in ("ro", "rw"):
            words.read_only = word == "ro"
        elif word == "remount":
            raise InvalidQuery("-o remount: unmount the vault, and mount it with other options")
        elif key in ("uid", "gid"):
            setattr(words, key, _parse_id(word, key, value))
        elif key == "umask":
            words.umask = _parse_umask(word, value)
        elif (found := _find_configured(key)) is not None:
            option, negated = found
            words.settings[option.name] = _parse_configured(word, option, value, equals, negated)
        elif not sloppy:
            known = [*CONFIGURED, *_OWN, *_FOR_KERNEL, *_PASSED_OVER, "no_read_check"]
            raise InvalidQuery(f"-o {word}: unknown mount option{nearest(key, known)}")
    return words


def _find_configured(key: str) -> tuple[Option, bool] | None:
    """The option that a word means, and whether it says no."""
    if key in CONFIGURED:
        return CONFIGURED[key], False
    option = CONFIGURED.get(key.removeprefix("no_"))
    return (option, True) if option is not None and option.type is bool else None


def _parse_configured(word: str, option: Option, value: str, equals: str, negated: bool) -> Any:
    if option.type is bool and not equals:
        return not negated
    if negated or not equals:
        raise InvalidQuery(f"-o {word}: write {option.key}=VALUE")
    try:
        return option.parse(value, f"-o {option.key}")
    except InvalidConfig as error:
        raise InvalidQuery(str(error)) from error


def _parse_id(word: str, key: str, value: str) -> int:
    if value.isascii() and value.isdigit() and int(value) < 2**32 - 1:
        return int(value)
    try:
        return pwd.getpwnam(value).pw_uid if key == "uid" else grp.getgrnam(value).gr_gid
    except (KeyError, ValueError):
        raise InvalidQuery(f"-o {word}: no number, and nobody's name here") from None


def _parse_umask(word: str, value: str) -> int:
    try:
        found = int(value, 8)
    except ValueError:
        found = -1
    if not 0 <= found <= 0o777:
        raise InvalidQuery(f"-o {word}: not an octal number up to 777, for instance umask=077")
    return found
