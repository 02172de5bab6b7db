"""`scopefs service` with a systemctl that only notes how it was called; see also tests/systemd."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scopefs.cli import service
from scopefs.cli.service import UNIT_FILES, Remove, Run, Write, find_manager, plan_install
from scopefs.errors import MountRefused, NotFound
from tests.mounting import run_scopefs

Service = Callable[..., "CompletedProcess[bytes]"]

_FAKE = """\
#!/bin/sh
echo "${0##*/} $*" >>"$CALLS"
[ ! -e "$CALLS.fail" ] || { echo no bus >&2; exit 1; }
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for this process and those it starts."""
    found = tmp_path / "home"
    found.mkdir()
    monkeypatch.setenv("HOME", str(found))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "SCOPEFS_VAULT"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where systemctl and loginctl, both fakes, note how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "loginctl"):
        (programs / name).write_text(_FAKE)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    noted = tmp_path / "calls"
    noted.touch()
    monkeypatch.setenv("CALLS", str(noted))
    return noted


@pytest.fixture
def run(home: Path, calls: Path) -> Service:
    """Runs `scopefs service`."""

    def call(*arguments: str, check: bool = True) -> "CompletedProcess[bytes]":
        found: CompletedProcess[bytes] = run_scopefs("service", *arguments, check=check)
        return found

    return call


def units(home: Path) -> Path:
    """Where a user's units are."""
    return home / ".config" / "systemd" / "user"


def test_install_writes_and_enables(run: Service, home: Path, calls: Path) -> None:
    """Three unit files, then daemon-reload; mount and check are enabled, and begun anew."""
    run("install", "papers")
    assert sorted(path.name for path in units(home).iterdir()) == sorted(UNIT_FILES)
    assert calls.read_text().splitlines() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable scopefs@papers.service scopefs-verify@papers.timer",
        "systemctl --user restart scopefs@papers.service scopefs-verify@papers.timer",
    ]


def test_dry_run_only_prints(run: Service, home: Path, calls: Path) -> None:
    """Whole files and all commands; nothing is written or run, with --system neither."""
    for options in ([], ["--system"]):
        said = run("install", "--dry-run", *options).stdout.decode()
        assert said.count("write /") == len(UNIT_FILES)
        assert "Restart=on-failure" in said
        assert "enable scopefs@vault.service scopefs-verify@vault.timer" in said
        assert "restart scopefs@vault.service scopefs-verify@vault.timer" in said
    assert calls.read_text() == ""
    assert list(home.iterdir()) == []


def test_linger_is_asked_for(run: Service, calls: Path) -> None:
    """`--linger` calls loginctl; without it the way is told."""
    assert b"loginctl enable-linger" in run("install").stdout
    assert "loginctl" not in calls.read_text()
    assert b"you linger" in run("install", "--linger").stdout
    assert calls.read_text().splitlines()[-1] == "loginctl enable-linger"


def test_allow_other_needs_a_line_in_fuse_conf(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user is refused with what to do, as the mount would fail; with the line, a drop-in."""
    conf = tmp_path / "fuse.conf"
    conf.write_text("#user_allow_other\n")
    monkeypatch.setattr(service, "_FUSE_CONF", conf)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    manager = find_manager(system=False)
    with pytest.raises(MountRefused, match="user_allow_other"):
        plan_install(manager, "vault", allow_other=True)
    conf.write_text("# x\nuser_allow_other\n")
    plan = plan_install(manager, "vault", allow_other=True)
    drop_in = units(home) / "scopefs@vault.service.d" / "allow-other.conf"
    [text] = [step.text for step in plan.steps if isinstance(step, Write) and step.path == drop_in]
    assert text == '[Service]\nEnvironment="MOUNT_OPTIONS=-o allow_other"\n'


def test_remove_forgets_the_units_and_keeps_the_vault(
    run: Service, home: Path, calls: Path
) -> None:
    """Stops and disables first, then takes its own files away, and says where the vault is."""
    vault = home / ".local" / "share" / "scopefs" / "vault"
    vault.mkdir(parents=True)
    run("install")
    own = units(home) / "scopefs@vault.service.d" / "own.conf"
    own.parent.mkdir()
    own.write_text("[Service]\n")
    calls.write_text("")
    assert str(vault) in run("remove").stdout.decode()
    assert calls.read_text().splitlines() == [
        "systemctl --user disable --now scopefs@vault.service scopefs-verify@vault.timer",
        "systemctl --user daemon-reload",
    ]
    assert [path.name for path in units(home).iterdir()] == [own.parent.name]
    assert vault.exists()
    assert own.exists()


def test_remove_keeps_the_files_for_other_vaults(home: Path, calls: Path) -> None:
    """They are shared: they go with the last one."""
    wants = units(home) / "default.target.wants"
    wants.mkdir(parents=True)
    for name in ("vault", "papers"):
        (wants / f"scopefs@{name}.service").touch()
    manager = find_manager(system=False)
    for file in UNIT_FILES:
        (manager.units / file).write_text(manager.render(file))
    assert "vault goes on as it was" in "\n".join(plan_install(manager, "papers").notes)
    plan = service.plan_remove(manager, "papers")
    assert not any(isinstance(step, Remove) for step in plan.steps)
    with pytest.raises(NotFound, match="installed: papers, vault"):
        service.plan_remove(manager, "other")


def test_what_is_not_there(run: Service) -> None:
    """Removing without an install is 4; a name that leads elsewhere is 2."""
    assert run("remove", check=False).returncode == 4
    for name in ("../x", "a b", "%h", ""):
        assert run("install", name, check=False).returncode == 2


def test_systemd_that_cannot_be_reached(run: Service, calls: Path) -> None:
    """Its own words, and what to do; exit code 7."""
    Path(f"{calls}.fail").touch()
    done = run("install", check=False)
    assert done.returncode == 7
    assert b"`systemctl --user daemon-reload` failed: no bus; systemd cannot be" in done.stderr


def test_mount_point_in_use_is_refused(run: Service, home: Path, calls: Path) -> None:
    """A directory that holds something stays as it is; nothing is written."""
    (home / "vault").mkdir()
    (home / "vault" / "mine.txt").touch()
    done = run("install", check=False)
    assert done.returncode == 7
    assert b"not an empty directory" in done.stderr
    assert calls.read_text() == ""


def test_system_is_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may look at what it would do; others than root do not get further."""
    from click.testing import CliRunner

    from scopefs.errors import Forbidden

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(service.command, ["install", "--system"])
    assert isinstance(done.exception, Forbidden)
    assert CliRunner().invoke(service.command, ["install", "--system", "-n"]).exit_code == 0


def test_system_units(home: Path) -> None:
    """The vault is in /var/lib, shown below /mnt to all users, from boot on."""
    system = find_manager(system=True)
    text = system.render("scopefs@.service")
    assert system.vault_path("vault") == Path("/var/lib/scopefs/vault")
    assert system.mountpoint("vault") == Path("/mnt/vault")
    assert "WantedBy=multi-user.target" in text
    assert 'Environment="MOUNT_OPTIONS=-o allow_other"' in text
    plan = plan_install(system, "vault")
    assert Run(["systemctl", "daemon-reload"]) in plan.steps
    assert any("belongs to root" in note for note in plan.notes)


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("file", UNIT_FILES)
def test_nothing_is_left_to_be_filled_in(home: Path, file: str, system: bool) -> None:
    """All that stands in a template in capitals between two @ has a value."""
    assert service._PLACEHOLDER.findall(find_manager(system=system).render(file)) == []


def test_vaults_are_where_the_other_commands_look(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if XDG_DATA_HOME is elsewhere, with signs that mean something to systemd."""
    from scopefs.cli.options import default_vault

    assert find_manager(system=False).vault == "%h/.local/share/scopefs/%i"
    monkeypatch.setenv("XDG_DATA_HOME", "/data/100% mine")
    manager = find_manager(system=False)
    assert manager.vault == "/data/100%% mine/scopefs/%i"
    assert manager.vault_path("vault") == default_vault()
