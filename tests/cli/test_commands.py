"""The commands as a user calls them: what they print, what they store, how they end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import click
import pytest

from scopefs import Vault, __version__
from scopefs.cli import COMMANDS, group
from scopefs.cli.mount_helper import command as mount_helper
from scopefs.model.envelope import decode_envelope
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import parse_collected_at
from scopefs.store import changes
from tests.mounting import Mounted, run_scopefs

Run = Callable[..., "CompletedProcess[bytes]"]

LISTINGS = ["ls", "log", "status"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the vault is, or will be."""
    return tmp_path / "vault"


@pytest.fixture
def run(path: Path) -> Run:
    """Runs a command on the vault."""

    def call(*arguments: object, **options: Any) -> "CompletedProcess[bytes]":
        found: CompletedProcess[bytes] = run_scopefs(
            *(str(argument) for argument in arguments), vault=path, **options
        )
        return found

    return call


@pytest.fixture
def filled(path: Path) -> Path:
    """A vault with two versions of a.json, one of b.txt, and a subcategory."""
    with Vault.open(path, create=True) as vault:
        vault.put("my.files", b'{"a":1}', name="a.json")
        vault.put("my.files", b'{"a":2}', name="a.json")
        vault.put("my.files", b"text", name="b.txt")
        vault.put("my.files.shared", b"below", name="c.txt")
    return path


def make_events(path: Path, count: int) -> None:
    """Record many events in one transaction."""
    with Vault.open(path, create=True) as vault:
        node = vault.apply(changes.ensure_scope, parse_scope("my.files"))
        vault.apply_all([
            partial(changes.apply_symlink, parent=node, name=b"n%d" % number, target=b"x")
            for number in range(count)
        ])  # fmt: skip


def load(done: "CompletedProcess[bytes]") -> Any:
    """What a command printed, as JSON."""
    return json.loads(done.stdout)


def check_failure(done: "CompletedProcess[bytes]", code: int, *words: str) -> None:
    """The command ended with that code, and with words instead of a trace."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert done.stdout == b""
    assert "Traceback" not in text
    for word in words:
        assert word in text


# Help


def test_help_names_every_command(run: Run) -> None:
    """`scopefs --help` lists all commands with what they do, and shows an example."""
    text = run("--help").stdout.decode()
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", text, re.MULTILINE), name
    assert "Example:" in text
    assert run("-h").stdout.decode() == text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_tells_of_the_vault(run: Run, command: str) -> None:
    """Every command, or every one of a group, takes it."""
    assert "--vault DIR" in run(command, "--help").stdout.decode()


def list_commands(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """All commands, those in groups too, with the words that call them."""
    if words:
        yield " ".join(words), command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from list_commands(inner, *words, name)


def test_help_of_every_command_shows_an_example_that_calls_it() -> None:
    """Those of groups as well; each command that an example names is there."""
    commands = {**dict(list_commands(group)), **dict(list_commands(mount_helper, "mount"))}
    for words, command in commands.items():
        text = command.get_help(click.Context(command, info_name=words))
        example = text.partition("Example:\n")[2].partition("\n\n")[0]
        called = re.findall(r"\bscopefs ([a-z][a-z ]*[a-z])", example)
        assert "mount -t" in example or any(f"{each} ".startswith(words) for each in called), words
        for each in called:
            assert any(each.startswith(known) for known in commands), (words, each)


def test_version(run: Run) -> None:
    """--version tells the program's version."""
    assert run("--version").stdout.decode().split()[-1] == __version__


@pytest.mark.parametrize("arguments", [("nonsense",), ("ls", "--nonsense"), ("get",), ("rm",)])
def test_wrong_use_ends_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    """Unknown commands and options, and missing arguments."""
    check_failure(run(*arguments, check=False), 2)


def test_installed_program_is_the_module(path: Path) -> None:
    """`scopefs` and `python -m scopefs` are the same program."""
    program = Path(sys.executable).parent / "scopefs"
    done = subprocess.run([program, "--version"], capture_output=True, check=True)
    assert done.stdout == run_scopefs("--version").stdout


# Where the vault is


def test_default_vault_is_in_the_user_s_data_directory(tmp_path: Path) -> None:
    """Without --vault and $SCOPEFS_VAULT: scopefs/vault where the user's data are."""
    environment = {"XDG_DATA_HOME": str(tmp_path / "share"), "SCOPEFS_VAULT": ""}
    run_scopefs("put", "my.files", "-", input=b"x", env=environment)
    assert (tmp_path / "share" / "scopefs" / "vault" / "vault.json").exists()


def test_option_goes_before_environment(run: Run, path: Path, tmp_path: Path) -> None:
    """--vault overrides $SCOPEFS_VAULT."""
    run("put", "--vault", tmp_path / "other", "my.files", "-", input=b"x")
    assert (tmp_path / "other" / "vault.json").exists()
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments",
    [("ls",), ("get", "a.b"), ("log",), ("rm", "a.b"), ("status",), ("settle",)],
)
def test_no_vault_ends_with_7(run: Run, path: Path, arguments: tuple[str, ...]) -> None:
    """Commands that only read make no vault: they say that there is none."""
    check_failure(run(*arguments, check=False), 7, "is no vault", str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("command", "scope"),
    [("get", "a"), ("ls", "a.b.c.d"), ("log", "Instagram.Profile"), ("rm", "a..b"),
     ("put", "a/b.c"), ("put", ""), ("put", "123.abc")],
)  # fmt: skip
def test_invalid_scope_ends_with_2(run: Run, filled: Path, command: str, scope: str) -> None:
    """What is no scope is refused with a message that says why."""
    check_failure(run(command, scope, check=False, input=b"x"), 2, "scope")


# put


def test_put_file(run: Run, path: Path, tmp_path: Path) -> None:
    """A file goes in under its own name, with its mtime; collectedAt is printed."""
    (tmp_path / "profile.json").write_bytes(b'{"a":1}\n')
    os.utime(tmp_path / "profile.json", ns=(1, 1_000_000_000_123_456_789))
    done = run("put", "instagram.profile", tmp_path / "profile.json")
    collected_at = done.stdout.decode().strip()
    parse_collected_at(collected_at)
    with Vault.open(path) as vault:
        version = vault.get("instagram.profile", name="profile.json")
        assert version.collected_at == collected_at
        assert version.mtime_ns == 1_000_000_000_123_456_789
        assert vault.read_payload(version) == b'{"a":1}\n'


def test_put_standard_input(run: Run, path: Path) -> None:
    """Standard input has no name, unless it is given one."""
    run("put", "my.files", input=b"nameless")
    run("put", "my.files", "-", "--name", "My Folder/a.txt", input=b"named")
    with Vault.open(path) as vault:
        assert [(v.name, vault.read_payload(v)) for v in vault.versions("my.files")] == [
            (b"My Folder/a.txt", b"named"), (None, b"nameless"),
        ]  # fmt: skip


def test_put_directory(run: Run, path: Path, tmp_path: Path) -> None:
    """A directory's files go in under their relative names; an empty one is mentioned."""
    (tmp_path / "Takeout" / "My Photos").mkdir(parents=True)
    (tmp_path / "Takeout" / "a.txt").write_bytes(b"a")
    (tmp_path / "Takeout" / "My Photos" / "b.jpg").write_bytes(b"b")
    (tmp_path / "Takeout" / "empty").touch()
    done = run("put", "google.takeout", tmp_path / "Takeout")
    assert len(done.stdout.splitlines()) == 2
    assert "empty: empty, no version made" in done.stderr.decode()
    with Vault.open(path) as vault:
        found = {name: entry.size for name, entry in vault.names("google.takeout")}
    assert found == {b"a.txt": 1, b"My Photos/b.jpg": 1}


def test_put_directory_with_lower_case_folders(run: Run, path: Path, tmp_path: Path) -> None:
    """A directory goes in whole, whatever its folders are called, as `cp -r` to the mount does."""
    (tmp_path / "Takeout" / "photos").mkdir(parents=True)
    (tmp_path / "Takeout" / "a.txt").write_bytes(b"a")
    (tmp_path / "Takeout" / "photos" / "b.jpg").write_bytes(b"b")
    run("put", "google.takeout", tmp_path / "Takeout")
    with Vault.open(path) as vault:
        found = [vault.read_payload(v) for s in vault.scopes() for v in vault.versions(s.scope)]
    assert sorted(found) == [b"a", b"b"]


def test_put_directory_leaves_the_vault_and_its_mount_out(tmp_path: Path) -> None:
    """Who stores the home directory does not store the vault in itself; it is said."""
    home = tmp_path / "home"
    vault, point = home / ".local" / "vault", home / "vault"
    run_scopefs("mount", point, vault=vault)
    try:
        (point / "my" / "files").mkdir(parents=True)
        (point / "my" / "files" / "a.txt").write_text("in the vault")
        (home / "mine.txt").write_text("mine")
        (home / ".local" / "other.txt").write_text("other")
        done = run_scopefs("put", "my.home", home, vault=vault)
    finally:
        run_scopefs("umount", point, vault=vault)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.decode() == "".join(
        f"scopefs: {place}: left out, it is the vault itself\n" for place in (vault, point)
    )
    with Vault.open(vault) as opened:
        assert {name for name, _ in opened.names("my.home")} == {b"mine.txt", b".local/other.txt"}


def test_put_json_receipts(run: Run, path: Path, tmp_path: Path) -> None:
    """--json prints the receipt of a file, and a list of receipts for a directory."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"a")
    one = load(run("put", "my.files", tmp_path / "d" / "a", "--json"))
    assert one["scope"] == "my.files"
    assert one["status"] == "stored"
    many = load(run("put", "my.files", tmp_path / "d", "--json"))
    assert [set(receipt) for receipt in many] == [{"scope", "collectedAt", "status"}]
    with Vault.open(path) as vault:
        assert [v.collected_at for v in vault.versions("my.files")] == [
            many[0]["collectedAt"], one["collectedAt"],
        ]  # fmt: skip


def test_put_odd_names(run: Run, path: Path, tmp_path: Path) -> None:
    """Names that are no UTF-8, or start with a dash, are kept byte for byte."""
    name = os.path.join(os.fsencode(tmp_path), b"\xff\n")
    Path(os.fsdecode(name)).write_bytes(b"x")
    run("put", "my.files", os.fsdecode(name))
    (tmp_path / "-dash").write_bytes(b"y")
    run("put", "my.files", "--", "-dash", cwd=tmp_path)
    with Vault.open(path) as vault:
        assert {v.name for v in vault.versions("my.files")} == {b"\xff\n", b"-dash"}


def test_put_of_nothing_is_refused(run: Run, path: Path, tmp_path: Path) -> None:
    """An empty payload makes no version: exit code 2."""
    (tmp_path / "empty").touch()
    for done in (
        run("put", "my.files", input=b"", check=False),
        run("put", "my.files", tmp_path / "empty", check=False),
        run("put", "my.files", tmp_path / "missing", check=False),
        run("put", "my.files", "-", "--name", "a/../b", input=b"x", check=False),
        run("put", "my.files", "-", "--name", ".versions", input=b"x", check=False),
        run("put", "my.files", tmp_path, "--name", "x", check=False),
    ):
        check_failure(done, 2)
    with Vault.open(path) as vault:
        assert vault.versions("my.files") == []


def test_put_into_something_else_is_refused(run: Run, path: Path) -> None:
    """A directory that holds other files is no vault: exit code 7."""
    path.mkdir()
    (path / "letter.txt").touch()
    check_failure(run("put", "my.files", input=b"x", check=False), 7, "is no vault")
    assert os.listdir(path) == ["letter.txt"]


# get


def test_get_prints_the_newest(run: Run, filled: Path) -> None:
    """Without more it is the newest version of the scope, byte for byte."""
    assert run("get", "my.files").stdout == b"text"
    assert run("get", "my.files.shared").stdout == b"below"


def test_get_by_name(run: Run, filled: Path) -> None:
    """--name asks for one file."""
    assert run("get", "my.files", "--name", "a.json").stdout == b'{"a":2}'


def test_get_by_name_in_a_folder_that_was_made_again(run: Run, mounted: Mounted) -> None:
    """--name finds a file in a folder whose name an earlier folder bore."""
    scope = mounted.make_scope()
    for content in (b"old", b"new"):
        (scope / "Photos").mkdir()
        (scope / "Photos" / "a").write_bytes(content)
        if content == b"old":
            subprocess.run(["rm", "-r", scope / "Photos"], check=True)
    assert len(os.listdir(scope / ".versions")) == 3
    assert run("get", "my.files", "--name", "Photos/a").stdout == b"new"
    assert run("get", "my.files", "--name", "Photos/a", "--at", "2099").stdout == b"new"


def test_get_by_stamp(run: Run, filled: Path) -> None:
    """--stamp takes what `ls .versions` shows, with or without .json."""
    with Vault.open(filled) as vault:
        oldest = vault.versions("my.files")[-1].stamp
    assert run("get", "my.files", "--stamp", oldest).stdout == b'{"a":1}'
    assert run("get", "my.files", "--stamp", f"{oldest}.json").stdout == b'{"a":1}'


def test_get_at_a_time(run: Run, filled: Path) -> None:
    """--at takes a collectedAt, a day, or what lies between; the newest at or before it."""
    with Vault.open(filled) as vault:
        versions = vault.versions("my.files")
    for version, content in zip(versions, (b"text", b'{"a":2}', b'{"a":1}'), strict=True):
        assert run("get", "my.files", "--at", version.stamp).stdout == content
    assert run("get", "my.files", "--at", versions[0].collected_at[:10]).stdout == b"text"
    check_failure(run("get", "my.files", "--at", "2001-01-01", check=False), 4)


def test_get_envelope(run: Run, filled: Path) -> None:
    """--envelope prints what stands in data/."""
    content = run("get", "my.files", "--name", "a.json", "--envelope").stdout
    assert decode_envelope(content).data == b'{"a":2}'
    assert content in [file.read_bytes() for file in filled.glob("data/my/files/*.json")]


def test_get_to_a_file(run: Run, filled: Path, tmp_path: Path) -> None:
    """-o writes a new file, and never over one that is there."""
    run("get", "my.files", "-o", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"text"
    again = run("get", "my.files.shared", "-o", tmp_path / "out", check=False)
    check_failure(again, 5, "out")
    assert (tmp_path / "out").read_bytes() == b"text"


@pytest.mark.parametrize(
    "arguments",
    [("my.nothing",), ("my.files", "--name", "x"), ("my.files", "--stamp", "2026-01-21T10-00-00Z")],
)
def test_get_of_what_is_not_there_ends_with_4(
    run: Run, filled: Path, arguments: tuple[str, ...]
) -> None:
    """An unknown scope, name or stamp."""
    check_failure(run("get", *arguments, check=False), 4, arguments[0])


@pytest.mark.parametrize("option", [("--at", "yesterday"), ("--stamp", "x"), ("--at", "2026-13")])
def test_get_at_no_time_ends_with_2(run: Run, filled: Path, option: tuple[str, str]) -> None:
    """What is neither time nor stamp."""
    check_failure(run("get", "my.files", *option, check=False), 2, option[1])


def test_get_of_a_damaged_version_ends_with_6(run: Run, path: Path) -> None:
    """A changed envelope, a missing one, a missing blob: never wrong bytes."""
    with Vault.open(path, create=True) as vault:
        for name, content in (("doc", b'{"a":1}'), ("text", b"text"), ("blob", bytes(20_000))):
            vault.put(f"my.{name}", content)
    (doc,) = path.glob("data/my/doc/*.json")
    doc.write_bytes(doc.read_bytes().replace(b'{"a":1}', b'{"a":2}'))
    next(path.glob("data/my/text/*.json")).unlink()
    next(path.glob("blobs/*/*")).unlink()
    for name in ("doc", "text", "blob"):
        check_failure(run("get", f"my.{name}", check=False), 6)


# ls


def test_ls_lists_scopes(run: Run, filled: Path) -> None:
    """Each scope with its versions, bytes and newest time, for people as an age."""
    lines = [re.split("  +", line) for line in run("ls").stdout.decode().splitlines()]
    assert [line[:3] for line in lines] == [["my.files", "3", "18"], ["my.files.shared", "1", "5"]]
    assert all(re.fullmatch(r"just now|\d+ seconds ago", line[3]) for line in lines)
    listed = load(run("ls", "--json"))
    assert [found["scope"] for found in listed] == ["my.files", "my.files.shared"]
    assert [found["versionCount"] for found in listed] == [3, 1]
    with Vault.open(filled) as vault:
        newest = [vault.get(found["scope"]).collected_at for found in listed]
    assert [found["latestCollectedAt"] for found in listed] == newest


def test_ls_lists_names(run: Run, filled: Path) -> None:
    """The names in a scope with their sizes; not those of the subcategory."""
    assert run("ls", "my.files").stdout == b"7  a.json\n4  b.txt\n"
    assert load(run("ls", "my.files", "--json")) == [
        {"name": "a.json", "sizeBytes": 7}, {"name": "b.txt", "sizeBytes": 4},
    ]  # fmt: skip


def test_ls_of_odd_names(run: Run, path: Path) -> None:
    """Control characters and invalid UTF-8 are escaped, and told exactly in JSON."""
    with Vault.open(path, create=True) as vault:
        for name in (b"a\nb", b"\xff\x1b[31m", "🎉".encode()):
            vault.put("my.files", b"x", name=name)
    lines = run("ls", "my.files").stdout.decode().splitlines()
    assert lines == ["1  a\\nb", "1  🎉", "1  \\udcff\\x1b[31m"]
    assert load(run("ls", "my.files", "--json")) == [
        {"name": "a\nb", "sizeBytes": 1}, {"name": "🎉", "sizeBytes": 1},
        {"nameHex": "ff1b5b33316d", "sizeBytes": 1},
    ]  # fmt: skip


def test_ls_of_an_empty_vault(run: Run, path: Path) -> None:
    """No scopes: nothing, or an empty list."""
    Vault.open(path, create=True).close()
    assert run("ls").stdout == b""
    assert load(run("ls", "--json")) == []


@pytest.mark.parametrize("command", ["ls", "log", "rm", "get"])
def test_unknown_scope_ends_with_4(run: Run, filled: Path, command: str) -> None:
    """A scope that never was."""
    check_failure(run(command, "no.such", check=False), 4, "no.such")


# log


def test_log_lists_events_newest_first(run: Run, filled: Path) -> None:
    """All events with gapless numbers, newest first; or those of one scope."""
    events = load(run("log", "--json"))
    assert [event["seq"] for event in events] == list(range(len(events), 0, -1))
    assert [event["op"] for event in events].count("version") == 4
    of_scope = load(run("log", "my.files", "--json"))
    assert [event["op"] for event in of_scope].count("version") == 3
    lines = run("log", "my.files").stdout.decode().splitlines()
    assert [int(line.split()[0]) for line in lines] == [event["seq"] for event in of_scope]


def test_log_limit(run: Run, filled: Path) -> None:
    """-n says how many at most."""
    assert len(run("log", "-n", "2").stdout.splitlines()) == 2
    assert len(load(run("log", "-n", "3", "--json"))) == 3
    check_failure(run("log", "-n", "0", check=False), 2)


def test_log_of_many_events(run: Run, path: Path) -> None:
    """More events than one page are all listed, each once."""
    make_events(path, 1200)
    events = load(run("log", "--json"))
    assert [event["seq"] for event in events] == list(range(len(events), 0, -1))
    assert len(run("log").stdout.splitlines()) == len(events) > 1200


def test_log_reaches_removed_scopes(run: Run, filled: Path) -> None:
    """What was deleted is in the log, with the deletion."""
    run("rm", "my.files")
    ops = [event["op"] for event in load(run("log", "my.files", "--json"))]
    assert ops.count("delete-scope") == 1
    assert ops.count("version") == 3


@pytest.mark.parametrize("arguments", [("log",), ("log", "--json"), ("get", "big.file")])
def test_reader_that_has_had_enough(path: Path, run: Run, arguments: tuple[str, ...]) -> None:
    """`scopefs log | head -1` ends without a word."""
    with Vault.open(path, create=True) as vault:
        vault.put("big.file", os.urandom(500_000))
    make_events(path, 1500)
    command = f"{sys.executable} -m scopefs {' '.join(arguments)} --vault {path} | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert len(done.stdout) == 10
    assert done.stderr == b""


# rm


def test_rm_version(run: Run, filled: Path) -> None:
    """A version goes to the trash; its name shows the one before."""
    with Vault.open(filled) as vault:
        newest = vault.get("my.files", name="a.json")
    run("rm", "my.files", newest.stamp)
    assert run("get", "my.files", "--name", "a.json").stdout == b'{"a":1}'
    assert not (filled / newest.path).exists()
    assert len(list(filled.glob("trash/**/*.json"))) == 1
    check_failure(run("rm", "my.files", newest.stamp, check=False), 4)


def test_rm_scope_leaves_subcategories(run: Run, filled: Path) -> None:
    """A scope's deletion never touches another scope."""
    assert load(run("rm", "my.files", "--json")) == {"scope": "my.files", "deleted": 3}
    check_failure(run("get", "my.files", check=False), 4)
    assert run("get", "my.files.shared").stdout == b"below"
    assert [found["scope"] for found in load(run("ls", "--json"))] == ["my.files.shared"]


def test_rm_with_subcategories(run: Run, filled: Path) -> None:
    """-r takes the subcategories along, and no scope whose name only begins alike."""
    with Vault.open(filled) as vault:
        vault.put("my.files2", b"stays")
    run("rm", "-r", "my.files")
    assert [found["scope"] for found in load(run("ls", "--json"))] == ["my.files2"]
    assert list(filled.glob("data/my/files/**/*.json")) == []


def test_rm_r_of_a_scope_that_has_only_subcategories(run: Run, path: Path) -> None:
    """-r works for a scope without versions of its own."""
    with Vault.open(path, create=True) as vault:
        vault.put("my.files.shared", b"below")
    run("rm", "-r", "my.files")
    assert load(run("ls", "--json")) == []


def test_rm_r_with_a_stamp_is_refused(run: Run, filled: Path) -> None:
    """-r goes with a whole scope."""
    check_failure(run("rm", "-r", "my.files", "2026-01-21T10-00-00Z", check=False), 2)
    check_failure(run("rm", "my.files", "no-stamp", check=False), 2)


# status, settle


def test_status_of_an_unmounted_vault(run: Run, filled: Path) -> None:
    """What the vault holds, in numbers."""
    found = load(run("status", "--json"))
    assert found["vault"] == str(filled)
    assert (found["scopes"], found["versions"], found["payloadBytes"]) == (2, 4, 23)
    assert (found["unsettled"], found["partial"], found["refusals"]) == (0, 0, 0)
    assert found["mount"] is None
    assert found["lastVersion"]["scope"] == "my.files.shared"
    text = run("status").stdout.decode()
    assert re.search(r"^mounted +no$", text, re.MULTILINE)
    assert re.search(r"^versions +4 \(23 bytes\)$", text, re.MULTILINE)


def test_status_tells_where_a_vault_is_mounted(run: Run, mounted: Mounted) -> None:
    """Mount point and process of the mount."""
    found = load(run("status", "--json"))
    assert found["mount"] == {"pid": mounted.process.pid, "mountpoint": str(mounted.point)}
    assert f"{mounted.point} (process {mounted.process.pid})" in run("status").stdout.decode()


def test_settle_places_what_a_mount_has_published(run: Run, mounted: Mounted) -> None:
    """After `scopefs settle` the envelopes stand in data/, mounted or not."""
    scope = mounted.make_scope()
    for number in range(20):
        (scope / f"f{number}").write_bytes(b"x")
    assert len(os.listdir(scope / ".versions")) == 21
    run("settle")
    assert len(list(mounted.vault.glob("data/my/files/*.json"))) == 20
    assert load(run("status", "--json"))["unsettled"] == 0


@pytest.mark.parametrize("command", LISTINGS)
def test_json_is_one_document(run: Run, filled: Path, command: str) -> None:
    """Every listing has --json, and prints nothing else then."""
    done = run(command, "--json")
    load(done)
    assert done.stderr == b""


# serve


@pytest.fixture
def server(path: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`scopefs serve` on a free port, and its address."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scopefs", "serve", "--vault", path, "--http", "127.0.0.1:0",
             "--http-auth", "none"],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield process, line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_stores_and_ends_with_0(
    server: tuple["subprocess.Popen[str]", str], path: Path, run: Run, number: signal.Signals
) -> None:
    """A POST is stored in a vault that serve makes; a signal ends it with 0, all settled."""
    process, address = server
    request = urllib.request.Request(
        f"{address}/v1/data/test.scope", b'{"hello":"world"}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
        receipt = json.load(answer)
    assert receipt["scope"] == "test.scope"
    assert run("get", "test.scope").stdout == b'{"hello":"world"}'
    process.send_signal(number)
    assert process.wait(30) == 0
    assert len(list(path.glob("data/test/scope/*.json"))) == 1


def test_mount_serves_http_as_well(run: Run, start: Callable[..., Mounted], path: Path) -> None:
    """With --http the mount has the HTTP door too: what is posted shows in the tree."""
    mounted = start("vault", "mnt", "--http", "127.0.0.1:0", "--http-auth", "none")
    match = re.search(r"http://\S+", mounted.log)
    assert match is not None
    request = urllib.request.Request(
        f"{match[0]}/v1/data/test.scope", b'{"hello":"world"}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
    latest = mounted.point / "test" / "scope" / ".versions" / "latest.json"
    assert decode_envelope(latest.read_bytes()).data == b'{"hello":"world"}'
    mounted.stop()
    mounted.check_log()


@pytest.mark.parametrize(
    "options",
    [(), ("--http", "8080", "--http-auth", "none"),
     ("--http", "127.0.0.1:x", "--http-auth", "none"),
     ("--http", "127.0.0.1:99999", "--http-auth", "none"),
     ("--http", "0.0.0.0:0", "--http-auth", "none"), ("--http", "[::]:0", "--http-auth", "none"),
     ("--http", "example.org:80", "--http-auth", "none")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["serve", "mount"])
def test_open_or_odd_addresses_are_refused(
    run: Run, path: Path, tmp_path: Path, command: str, options: tuple[str, ...]
) -> None:
    """No door without a guard but on the loopback; no address that is none: exit code 2."""
    if command == "mount" and not options:
        options = ("--http",)
    point = [tmp_path / "mnt"] if command == "mount" else []
    check_failure(run(command, *point, *options, check=False), 2)
    assert not path.exists()


@pytest.mark.parametrize("command", ["serve", "mount"])
def test_taken_port_ends_with_7(run: Run, tmp_path: Path, command: str) -> None:
    """A port that another program has: one sentence, and nothing stays mounted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        point = [tmp_path / "mnt"] if command == "mount" else []
        done = run(command, *point, "--http", address, "--http-auth", "none", check=False)
    check_failure(done, 7, address)
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_json_of_every_command_about_one_version(tmp_path: Path) -> None:
    """put, get, settle and umount say in JSON what they did."""
    vault = tmp_path / "vault"
    receipt = json.loads(
        run_scopefs("put", "my.files", "-", "--json", vault=vault, input=b"x").stdout
    )
    found = json.loads(run_scopefs("get", "my.files", "--json", vault=vault).stdout)
    assert (found["scope"], found["collectedAt"]) == (receipt["scope"], receipt["collectedAt"])
    assert (found["kind"], found["sizeBytes"]) == ("inline", 1)
    settled = run_scopefs("settle", "--json", vault=vault).stdout
    assert json.loads(settled) == {"unsettled": 0}


def test_mount_and_umount_in_json(tmp_path: Path) -> None:
    """mount says what is mounted where; umount what is not any more."""
    vault, point = tmp_path / "vault", tmp_path / "mnt"
    mounted = json.loads(run_scopefs("mount", str(point), "--json", vault=vault).stdout)
    assert mounted == {"vault": str(vault), "mountpoint": str(point)}
    unmounted = json.loads(run_scopefs("umount", str(point), "--json", vault=vault).stdout)
    assert unmounted == {"unmounted": str(point)}


def test_log_follows(tmp_path: Path) -> None:
    """log -f prints what is put after it began."""
    vault = tmp_path / "vault"
    run_scopefs("put", "my.files", "-", vault=vault, input=b"before")
    command = [sys.executable, "-m", "scopefs", "log", "-f", "--json", "--vault", str(vault)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            stop = threading.Event()

            def put_until_seen() -> None:
                # Nothing says when the command has begun to look.
                while not stop.wait(0.2):
                    run_scopefs("put", "my.files", "-", "--name", "n", vault=vault, input=b"after")

            putter = threading.Thread(target=put_until_seen)
            putter.start()
            event = json.loads(process.stdout.readline())
            stop.set()
            putter.join()
            assert (event["op"], event["scope"], event["file"]) == ("version", "my.files", "n")
        finally:
            process.terminate()
