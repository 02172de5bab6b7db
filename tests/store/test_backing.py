"""What a vault lies on: found in the kernel's table, and what it lacks said in words."""

import os
import tempfile
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.store.backing import WEAK_TYPES, find_backing
from tests.mounting import run_scopefs

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /mnt/nas rw - nfs4 server:/export rw,vers=4.2
31 22 0:31 / /mnt/usb\\040stick rw - vfat /dev/sdb1 rw
32 22 8:2 / /srv rw - ext4 /dev/sda2 rw,nobarrier
33 32 0:33 / /srv/ssh rw - fuse.sshfs host: rw
34 22 0:34 / /srv rw shared:2 master:1 - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "mountpoint", "words"),
    [
        ("/home/ada/vault", "ext4", "/", []),
        ("/mnt/nas", "nfs4", "/mnt/nas", ["one machine at a time"]),
        ("/mnt/nas/a/b", "nfs4", "/mnt/nas", ["one machine at a time"]),
        ("/mnt/nas2", "ext4", "/", []),
        ("/mnt/usb stick/vault", "vfat", "/mnt/usb stick", ["no hard links"]),
        ("/srv/ssh/vault", "fuse.sshfs", "/srv/ssh", ["another program"]),
        ("/srv/vault", "tmpfs", "/srv", ["in memory"]),
    ],
)
def test_backing_is_the_mount_that_is_on_top(
    path: str, kind: str, mountpoint: str, words: list[str]
) -> None:
    """The longest mount point above a path counts, of several at one place the last."""
    found = find_backing(Path(path), TABLE)
    assert (found.type, found.mountpoint) == (kind, mountpoint)
    assert len(found.warnings) == len(words)
    for text, word in zip(found.warnings, words, strict=True):
        assert word in text


@pytest.mark.parametrize("option", ["nobarrier", "barrier=0", "volatile"])
def test_options_that_undo_fsync_are_named(option: str) -> None:
    """A file system that is sound but for the way it is mounted."""
    table = f"1 0 8:1 / / rw - xfs /dev/sda1 rw,{option}\n"
    (warning,) = find_backing(Path("/vault"), table).warnings
    assert option in warning


def test_status_names_what_is_not_guaranteed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` says on what the vault lies, and what that lacks."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        found = vault.status()["fileSystem"]
        assert os.path.ismount(found["mountpoint"])
        kind = found["type"]
        monkeypatch.setitem(WEAK_TYPES, kind, "is not to be trusted")
        assert "is not to be trusted" in vault.status()["fileSystem"]["warnings"]


def test_status_of_a_vault_in_memory(tmp_path: Path) -> None:
    """A file system that is really there: named to people, with what it does not guarantee."""
    memory = Path("/dev/shm")
    if find_backing(memory).type != "tmpfs" or not os.access(memory, os.W_OK):
        pytest.skip("this machine has no /dev/shm in memory")
    with tempfile.TemporaryDirectory(dir=memory) as place:
        Vault.open(Path(place) / "v", create=True).close()
        said = run_scopefs("status", vault=Path(place) / "v").stdout.decode()
    assert "tmpfs" in said
    assert "is in memory" in said
