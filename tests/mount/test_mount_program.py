"""mount(8), umount(8) and lines of fstab (semantics O4, O5): with the programs themselves."""

import pwd
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.namespaces import Namespace

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with `mount.scopefs`; the daemons' logs are looked at."""
    namespace = Namespace(tmp_path)
    yield namespace
    namespace.close()
    for log in tmp_path.rglob("scopefs.log"):
        assert " ERROR " not in log.read_text()
        assert "Traceback" not in log.read_text()


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """Where the vault is to be. mount(8) wants its source and its directory to be there."""
    (tmp_path / "my, vault").mkdir()
    (tmp_path / "mnt").mkdir()
    return tmp_path / "my, vault"


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """Where it is mounted."""
    return tmp_path / "mnt"


@pytest.mark.parametrize("kind", ["scopefs", "fuse.scopefs"])
def test_mount_and_umount(inside: Namespace, vault: Path, point: Path, kind: str) -> None:
    """By both names of the type; what is written is there after umount(8)."""
    inside.run("mount", "-t", kind, vault, point, "-o", "rw,allow_other,noexec,x-gvfs-hide")
    assert inside.mounts() == {str(point): str(vault)}
    options = inside.run("findmnt", "-no", "OPTIONS", point).stdout.strip().split(",")
    assert {"rw", "nosuid", "nodev", "noexec", "allow_other"} <= set(options)
    inside.run("mkdir", "-p", point / "my" / "files")
    inside.run("sh", "-c", 'echo text > "$1/my/files/a.txt"', "sh", point)
    inside.umount(point)
    assert inside.mounts() == {}
    inside.run("mount", "-t", kind, "-o", "ro", vault, point)
    options = inside.run("findmnt", "-no", "OPTIONS", point).stdout.strip().split(",")
    assert "ro" in options
    assert inside.run("cat", point / "my" / "files" / "a.txt").stdout == "text\n"
    refused = inside.run("touch", point / "my" / "files" / "a.txt", check=False)
    assert "Read-only file system" in refused.stderr
    inside.umount(point)


def test_line_of_fstab(inside: Namespace, tmp_path: Path, vault: Path, point: Path) -> None:
    """`mount POINT` and `mount -a` take all from fstab; `mount -a` leaves alone what is mounted."""
    table = tmp_path / "fstab"
    source = str(vault).replace(" ", "\\040")
    table.write_text(
        f"{source} {point} scopefs durability=relaxed,no_read_check,nofail,noauto 0 0\n"
    )
    inside.run("mount", "-T", table, point)
    status = inside.run("cat", point / ".scopefs" / "status.json").stdout
    assert '"durability": "relaxed"' in status
    inside.umount(point)
    table.write_text(f"{source} {point} scopefs defaults,nofail,_netdev,x-systemd.automount 0 0\n")
    for _ in range(2):
        inside.run("mount", "-a", "-T", table)
        assert inside.mounts() == {str(point): str(vault)}
    inside.umount(point)


def test_owners_and_modes_that_are_shown(inside: Namespace, vault: Path, point: Path) -> None:
    """uid=, gid= and umask= say who owns what is shown; versions are never writable."""
    # Other users may not pass through the directories of tests.
    point.parent.chmod(0o755)
    inside.run("mount", "--bind", point.parent, "/mnt")
    point = Path("/mnt", point.name)
    inside.run("mount", "-t", "scopefs", vault, point, "-o",
               f"uid=nobody,gid={NOBODY.pw_gid},umask=027,allow_other")  # fmt: skip
    scope = point / "my" / "files"
    inside.run("mkdir", "-p", scope)
    inside.run("sh", "-c", 'umask 077; echo x > "$1/a.txt"; echo x > "$1/b"; chmod 700 "$1/b"',
               "sh", scope)  # fmt: skip
    shown = inside.run("stat", "-c", "%a %u %g", scope, scope / "a.txt", scope / "b",
                       scope / ".versions", scope / ".versions" / "latest.json", point,
                       "-L").stdout.splitlines()  # fmt: skip
    owner = f"{NOBODY.pw_uid} {NOBODY.pw_gid}"
    modes = ["750", "640", "750", "750", "440", "750"]
    assert shown == [f"{mode} {owner}" for mode in modes]
    as_nobody = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}",
                 "--clear-groups"]  # fmt: skip
    # The kernel takes these for the file's owner and modes.
    inside.run(*as_nobody, "sh", "-c", 'echo mine >> "$1/a.txt"', "sh", scope)
    assert inside.run("cat", scope / "a.txt").stdout == "x\nmine\n"
    others = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    denied = inside.run(*others, "cat", scope / "a.txt", check=False)
    assert "Permission denied" in denied.stderr
    inside.umount(point)


@pytest.mark.parametrize(("options", "said"), [
    ("durabilty=relaxed", "unknown mount option; did you mean 'durability'?"),
    ("readonly", "-o readonly: unknown mount option"),
    ("durability=strong", "-o durability=strong"),
    ("max_file_bytes=many", "-o max_file_bytes=many"),
    ("http", "write http=VALUE"),
    ("uid=nosuchuser", "-o uid=nosuchuser: no number, and nobody's name here"),
    ("umask=999", "-o umask=999: not an octal number"),
])  # fmt: skip
def test_wrong_options(
    inside: Namespace, vault: Path, point: Path, options: str, said: str
) -> None:
    """Nothing is mounted, and the message says what was probably meant."""
    done = inside.run("mount", "-t", "scopefs", vault, point, "-o", options, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert inside.mounts() == {}
    assert list(vault.iterdir()) == []


def test_words_of_mount(inside: Namespace, vault: Path, point: Path) -> None:
    """-s passes over what is unknown; -f mounts nothing; what cannot be mounted ends with 32."""
    command = ["mount", "-t", "scopefs", vault, point]
    inside.run(*command, "-f")
    assert inside.mounts() == {}
    inside.run(*command, "-s", "-o", "no_such_option=1")
    assert inside.mounts() == {str(point): str(vault)}
    again = inside.run(*command, check=False)
    assert again.returncode == 32
    assert "already mounted" in again.stderr
    remount = inside.run("mount", "-o", "remount,ro", point, check=False)
    assert remount.returncode == 1
    assert "unmount the vault, and mount it with other options" in remount.stderr
    inside.umount(point)


def test_the_program_is_installed_by_both_names() -> None:
    """As scripts of the package, which docs/mounting.md says where to link."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    scripts = project["project"]["scripts"]
    assert {scripts["mount.scopefs"], scripts["mount.fuse.scopefs"]} == {
        "scopefs.cli.mount_helper:main"
    }
