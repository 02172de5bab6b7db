"""`-o versions=inline`: a scope's directory lists its versions, too (semantics V11)."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mounting import Mounted, run_scopefs, wait_until

Start = Callable[..., Mounted]
MANY = 700
"""More than two pages of a listing."""


@pytest.fixture
def inline(start: Start) -> Iterator[Mounted]:
    """A mount that lists versions."""
    mounted = start("vault", "mnt", "-o", "versions=inline")
    yield mounted
    mounted.stop()
    mounted.check_log()


def stamps(scope: Path) -> list[str]:
    """What `.versions` lists besides latest.json, in its order."""
    return [name for name in os.listdir(scope / ".versions") if name != "latest.json"]


def refused(code: int, call: Callable[..., object], *arguments: object) -> None:
    """Fail unless a call is refused with this errno."""
    with pytest.raises(OSError, check=lambda error: error.errno == code):
        call(*arguments)


def test_names_then_versions_are_listed(inline: Mounted) -> None:
    """The same files as in `.versions`, at once after a close; no latest.json, none in folders."""
    scope = inline.make_scope()
    (scope / "a.txt").write_text("one")
    (scope / "My Folder").mkdir()
    (scope / "My Folder" / "b.txt").write_text("two")
    found = stamps(scope)
    assert len(found) == 2
    assert os.listdir(scope) == ["a.txt", "My Folder", *found]
    for name in found:
        assert (scope / name).read_bytes() == (scope / ".versions" / name).read_bytes()
        assert os.path.samefile(scope / name, scope / ".versions" / name)
    assert os.listdir(scope / "My Folder") == ["b.txt"]
    assert os.listdir(inline.point) == ["my"]
    assert os.listdir(scope.parent) == ["files"]


def test_long_listing_is_whole_and_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    """Pages of names and of versions; each entry once, whatever is removed meanwhile."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        for number in range(MANY):
            vault.put("my.files", b"x", name=f"{number:04}")
    inline = start("vault", "mnt", "-o", "versions=inline")
    scope = inline.make_scope()
    found = os.listdir(scope)
    assert found == [f"{number:04}" for number in range(MANY)] + stamps(scope)
    with os.scandir(scope) as entries:
        seen = [next(entries).name]
        (scope / seen[0]).unlink()
        run_scopefs("rm", "my.files", found[-1].removesuffix(".json"), vault=inline.vault)
        seen += [entry.name for entry in entries]
    assert len(seen) == len(set(seen))
    assert set(found[:-1]) - {f"{MANY - 1:04}"} <= set(seen)
    inline.stop()


def test_versions_cannot_be_changed_there(inline: Mounted) -> None:
    """EPERM for every way; afterwards all is as it was."""
    scope = inline.make_scope()
    (scope / "a.txt").write_text("one")
    (name,) = stamps(scope)
    before = (scope / name).read_bytes()
    refused(errno.EPERM, os.unlink, scope / name)
    refused(errno.EPERM, os.rename, scope / name, scope / "b.json")
    refused(errno.EPERM, os.rename, scope / "a.txt", scope / name)
    refused(errno.EPERM, os.link, scope / name, scope / "b.json")
    refused(errno.EPERM, os.truncate, scope / name, 0)
    refused(errno.EPERM, os.open, scope / name, os.O_RDWR)
    refused(errno.EEXIST, os.mkdir, scope / name)
    refused(errno.EEXIST, os.symlink, "x", scope / name)
    refused(errno.EEXIST, os.link, scope / "a.txt", scope / name)
    refused(errno.EEXIST, os.open, scope / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert (scope / name).read_bytes() == before
    assert os.listdir(scope) == ["a.txt", name]


def test_version_that_goes_to_the_trash_is_gone(inline: Mounted) -> None:
    """At once, also for who had looked at it; by every door."""
    scope = inline.make_scope()
    (scope / "a.txt").write_text("one")
    (scope / "a.txt").write_text("two")
    run_scopefs("settle", vault=inline.vault)
    first, second = stamps(scope)
    assert (scope / first).read_bytes()
    (scope / ".versions" / first).unlink()
    assert not (scope / first).exists()
    assert (scope / second).read_bytes()
    run_scopefs("rm", "my.files", second.removesuffix(".json"), vault=inline.vault)
    assert not (scope / second).exists()
    assert os.listdir(scope) == []


def test_name_like_a_stamp_is_the_user_s(start: Start) -> None:
    """It hides the version of that stamp, is listed once, and can be moved and removed."""
    hidden = start()
    scope = hidden.make_scope()
    (scope / "a.txt").write_text("one")
    (name,) = stamps(scope)
    assert os.listdir(scope) == ["a.txt"]
    assert not (scope / name).exists()
    (scope / name).write_text("mine")
    hidden.stop()
    inline = start("vault", "mnt", "-o", "versions=inline")
    assert os.listdir(scope).count(name) == 1
    assert (scope / name).read_text() == "mine"
    (scope / name).rename(scope / "mine.txt")
    assert b'"version"' in (scope / name).read_bytes()
    assert (scope / "mine.txt").read_text() == "mine"
    inline.stop()


def test_scope_without_names_can_be_removed(inline: Mounted) -> None:
    """The directory goes as without the option; with it come its versions back into view."""
    scope = inline.make_scope()
    run_scopefs("put", "my.files", "-", vault=inline.vault, input=b"one")
    (name,) = stamps(scope)
    scope.rmdir()
    assert not scope.exists()
    scope.mkdir()
    assert os.listdir(scope) == [name]


def test_what_others_store_is_listed(inline: Mounted) -> None:
    """Versions without a name, too; and in a mount that only reads."""
    scope = inline.make_scope()
    run_scopefs("put", "my.files", "-", vault=inline.vault, input=b'{"a":1}')
    wait_until(lambda: len(os.listdir(scope)) == 1)
    (name,) = os.listdir(scope)
    assert b'"data":{"a":1}' in (scope / name).read_bytes()


def test_read_only_mount_lists_them(start: Start, tmp_path: Path) -> None:
    """`ro` and `versions=inline` go together."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        vault.put("my.files", b'{"a":1}', name="a.json")
    inline = start("vault", "mnt", "-o", "ro,versions=inline")
    scope = inline.point / "my" / "files"
    name = stamps(scope)[0]
    assert os.listdir(scope) == ["a.json", name]
    refused(errno.EROFS, os.unlink, scope / name)
    inline.stop()
