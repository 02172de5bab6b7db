"""Importing single versions: rows, names and events; what is left alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from scopefs.errors import Conflict, InvalidEnvelope, InvalidTime
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import format_collected_at, parse_stamp
from scopefs.store import changes, index
from scopefs.store.index import Version
from tests.store.inspection import (
    NOON_US,
    SECOND_US,
    Clock,
    check_whole,
    find_child,
    load_child,
    make_scope,
    query,
    read_event_lines,
    run_python,
    run_python_until_it_dies,
)

SCOPE = parse_scope("my.notes")
BLOB = bytes(range(256)) * 400


@pytest.fixture
def source(tmp_path: Path, clock: Clock) -> Iterator[Vault]:
    """Another vault, an hour behind."""
    early = Clock(clock.now_us - 3600 * SECOND_US)
    with Vault.open(tmp_path / "source", create=True, clock_us=early) as opened:
        yield opened


def put(vault: Vault, payload: bytes, name: str | None = "a.txt") -> tuple[Version, bytes]:
    """Store a payload; returns the version and its envelope."""
    version = vault.put("my.notes", payload, name=name)
    return version, vault.read_envelope(version)


def bring(vault: Vault, version: Version, envelope: bytes) -> bool:
    """Import a version; True if it was new."""
    return not vault.import_envelope(SCOPE, version.collected_us, envelope).was_there


def shown(vault: Vault, name: str = "a.txt") -> bytes:
    """What a name shows."""
    return vault.read_payload(vault.get("my.notes", name=name))


def count_events(vault: Vault) -> int:
    events: int = vault.status()["events"]
    return events


@pytest.mark.parametrize("payload", [b'{"a": 1}', b"text", b'{"a":"' + b"x" * 100_000 + b'"}'])
def test_an_imported_version_is_equal(clocked: Vault, source: Vault, payload: bytes) -> None:
    """Time, name, payload and every byte of the envelope, before and after it is settled."""
    version, envelope = put(source, payload)
    assert bring(clocked, version, envelope)
    for _ in range(2):
        found = clocked.get("my.notes", stamp=version.stamp)
        assert clocked.read_envelope(found) == envelope
        assert shown(clocked) == payload
        clocked.settle()
    assert (clocked.layout.root / found.path).read_bytes() == envelope
    check_whole(clocked)


def test_a_frozen_envelope_survives_a_rename(clocked: Vault, source: Vault) -> None:
    """Until it is settled, a published version follows its name; an imported one stays."""
    version, envelope = put(source, b"text")
    bring(clocked, version, envelope)
    node = make_scope(clocked, "my.notes")
    clocked.apply(changes.apply_rename, node, b"a.txt", node, b"b.txt", replace=True)
    clocked.apply(changes.apply_attributes, load_child(clocked, node, b"b.txt").node, 0o600, 7)
    assert clocked.read_envelope(clocked.get("my.notes", name="b.txt")) == envelope
    check_whole(clocked)
    assert clocked.read_envelope(clocked.get("my.notes", name="b.txt")) == envelope


def test_importing_again_changes_nothing(clocked: Vault, source: Vault) -> None:
    """No event, no version, no name."""
    version, envelope = put(source, b"text")
    assert bring(clocked, version, envelope)
    before = count_events(clocked)
    assert not bring(clocked, version, envelope)
    assert count_events(clocked) == before
    check_whole(clocked)


def test_a_different_version_at_that_time_is_a_conflict(clocked: Vault, source: Vault) -> None:
    """A version is never overwritten."""
    version, envelope = put(source, b"text")
    bring(clocked, version, envelope)
    for other in (envelope.replace(b"a.txt", b"b.txt"), envelope.replace(b"text/plain", b"x/y")):
        with pytest.raises(Conflict, match="another version"):
            bring(clocked, version, other)
    assert clocked.read_envelope(clocked.get("my.notes")) == envelope


def test_an_envelope_of_another_place_is_refused(clocked: Vault, source: Vault) -> None:
    """Scope and time are those of the place that it is imported to."""
    version, envelope = put(source, b"text")
    with pytest.raises(InvalidEnvelope, match="cannot be"):
        clocked.import_envelope(SCOPE, version.collected_us + 1, envelope)
    with pytest.raises(InvalidEnvelope, match="cannot be"):
        clocked.import_envelope(parse_scope("my.files"), version.collected_us, envelope)


def test_a_version_of_the_future_is_refused(clocked: Vault, source: Vault, clock: Clock) -> None:
    """Five seconds are borne, for clocks differ; and the scope's time goes on from there."""
    version, envelope = put(source, b"text")
    clock.now_us = version.collected_us - 5 * SECOND_US - 1
    with pytest.raises(InvalidTime):
        bring(clocked, version, envelope)
    clock.now_us += 1
    assert bring(clocked, version, envelope)
    assert clocked.put("my.notes", b"next").collected_us > version.collected_us
    check_whole(clocked)


def test_a_blob_that_is_not_here_is_refused(clocked: Vault, source: Vault) -> None:
    """An envelope alone cannot bring it; the message names the command that can."""
    version, envelope = put(source, BLOB)
    with pytest.raises(InvalidEnvelope, match="scopefs import"):
        bring(clocked, version, envelope)
    assert clocked.versions("my.notes") == []


@pytest.mark.parametrize("settled", [False, True])
def test_a_blob_that_is_here_is_used(clocked: Vault, source: Vault, settled: bool) -> None:
    """Whatever version it belongs to, settled or not."""
    version, envelope = put(source, BLOB)
    clocked.put("other.files", BLOB)
    if settled:
        clocked.settle()
    assert bring(clocked, version, envelope)
    assert shown(clocked) == BLOB
    check_whole(clocked)


def test_a_file_shows_its_newest_version_whatever_the_order(clocked: Vault, source: Vault) -> None:
    """Older ones go into its history."""
    brought = []
    for text in (b"one", b"two", b"three"):
        brought.append(put(source, text))
        source.clock_us.move(1)  # type: ignore[attr-defined]
    for number in (1, 0, 2):
        bring(clocked, *brought[number])
        assert shown(clocked) == (b"two", b"two", b"three")[(1, 0, 2).index(number)]
    for version, _ in brought:
        at = clocked.get("my.notes", name="a.txt", at=version.collected_at)
        assert at.collected_us == version.collected_us
    assert query(clocked, "SELECT COUNT(DISTINCT node) FROM data_files") == [(1,)]
    check_whole(clocked)


def test_a_live_name_with_a_newer_version_stays(clocked: Vault, source: Vault) -> None:
    """The file of that name takes the older version into its history; mode and mtime stay too."""
    version, envelope = put(source, b"old")
    clocked.put("my.notes", b"new", name="a.txt", mtime_ns=77)
    node = make_scope(clocked, "my.notes")
    clocked.apply(changes.apply_attributes, load_child(clocked, node, b"a.txt").node, 0o600, None)
    before = load_child(clocked, node, b"a.txt")
    bring(clocked, version, envelope)
    after = load_child(clocked, node, b"a.txt")
    assert shown(clocked) == b"new"
    assert (after.mode, after.mtime_ns, after.version) == (0o600, 77, before.version)
    found = clocked.get("my.notes", name="a.txt", stamp=version.stamp)
    assert clocked.read_payload(found) == b"old"
    clocked.delete("my.notes", clocked.get("my.notes", name="a.txt").stamp)
    assert shown(clocked) == b"old"
    check_whole(clocked)


def test_an_older_version_that_came_late_is_not_shown_before_a_newer(
    clocked: Vault, source: Vault, clock: Clock
) -> None:
    """What stands behind a deleted version is the newest by its time, not by its coming."""
    version, envelope = put(source, b"ancient")
    for text in (b"one", b"two"):
        clocked.put("my.notes", text, name="a.txt")
        clock.move(1)
    bring(clocked, version, envelope)
    clocked.delete("my.notes", clocked.get("my.notes", name="a.txt").stamp)
    assert shown(clocked) == b"one"


def test_a_name_that_a_directory_has_stays(clocked: Vault, source: Vault) -> None:
    """The version comes without a name to show it."""
    version, envelope = put(source, b"text", "Folder/a.txt")
    node = make_scope(clocked, "my.notes")
    clocked.put("my.notes", b"a file", name="Folder")
    bring(clocked, version, envelope)
    assert shown(clocked, "Folder") == b"a file"
    assert clocked.read_envelope(clocked.get("my.notes", stamp=version.stamp)) == envelope
    check_whole(clocked)
    assert find_child(clocked, node, b"a.txt") is None


def test_a_nameless_version_stands_in_the_history_alone(clocked: Vault, source: Vault) -> None:
    """As it did where it came from."""
    version, envelope = put(source, b"text", None)
    bring(clocked, version, envelope)
    assert clocked.get("my.notes").node is None
    assert list(clocked.names("my.notes")) == []
    check_whole(clocked)


def test_a_version_of_the_trash_can_be_imported_again(clocked: Vault, source: Vault) -> None:
    """The one in the trash stays there; both envelopes have their places, settled in one go."""
    version, envelope = put(source, b"text")
    bring(clocked, version, envelope)
    for settled in (True, False):
        if settled:
            clocked.settle()
        clocked.delete("my.notes", version.stamp)
        assert bring(clocked, version, envelope)
    check_whole(clocked)
    paths = [row[0] for row in query(clocked, "SELECT path FROM data_files ORDER BY id")]
    assert [path.partition("/")[0] for path in paths] == ["trash", "trash", "data"]
    assert {(clocked.layout.root / path).read_bytes() for path in paths} == {envelope}


def test_the_event_says_that_it_was_imported(clocked: Vault, source: Vault) -> None:
    """`version` with `imported`; and `show` where the file goes on to show a newer one."""
    version, envelope = put(source, b"old")
    newer = clocked.put("my.notes", b"new", name="a.txt")
    bring(clocked, version, envelope)
    clocked.settle()
    *_, event, again = (json.loads(line) for line in read_event_lines(clocked.layout.root))
    assert event["op"] == "version"
    assert event["imported"] is True
    assert event["collectedAt"] == format_collected_at(version.collected_us)
    assert (again["op"], again["node"], again["shows"]) == ("show", event["node"], newer.id)


def test_counters_and_times_of_the_scope_follow(clocked: Vault, source: Vault) -> None:
    """The next version is newer than whatever came."""
    version, envelope = put(source, b"text")
    bring(clocked, version, envelope)
    assert query(clocked, "SELECT last_us, versions, bytes FROM scopes") == [
        (version.collected_us, 1, 4)
    ]
    assert clocked.put("my.notes", b"x").collected_us == NOON_US


def test_an_import_that_ends_a_name(clocked: Vault, source: Vault) -> None:
    """A file that was renamed to a stamp: imported, and its name ends; or neither."""
    version, envelope = put(source, b"text")
    node = make_scope(clocked, "my.notes")
    clocked.put("my.notes", envelope, name="e.json")
    with pytest.raises(InvalidEnvelope):
        clocked.import_envelope(SCOPE, NOON_US, envelope, ending=(node, b"e.json"))
    assert find_child(clocked, node, b"e.json") is not None
    clocked.import_envelope(SCOPE, version.collected_us, envelope, ending=(node, b"e.json"))
    assert find_child(clocked, node, b"e.json") is None
    assert shown(clocked) == b"text"
    assert len(clocked.versions("my.notes")) == 2
    check_whole(clocked)


_DIE = """
import os, signal, sys
from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.store import atomic, settle
vault = Vault.open(sys.argv[1])
if sys.argv[2] == "settle":
    settle.Settler.settle = lambda *args, **options: True
vault.import_envelope(parse_scope("my.notes"), int(sys.argv[3]), open(sys.argv[4], "rb").read())
print("imported", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("payload", [b"text", b'{"a":"' + b"x" * 100_000 + b'"}'])
def test_what_was_imported_survives_kill(tmp_path: Path, payload: bytes) -> None:
    """Once the call has returned it is there, whoever settles it."""
    with Vault.open(tmp_path / "source", create=True) as source:
        version, envelope = put(source, payload)
    Vault.open(tmp_path / "vault", create=True).close()
    file = tmp_path / "envelope"
    file.write_bytes(envelope)
    arguments: list[Any] = [tmp_path / "vault", "settle", str(version.collected_us), file]
    assert run_python_until_it_dies(_DIE, *arguments) == "imported\n"
    with Vault.open(tmp_path / "vault") as vault:
        assert shown(vault) == payload
        check_whole(vault)
        assert vault.read_envelope(vault.get("my.notes")) == envelope


def test_importing_in_two_processes_at_once_is_importing_once(
    clocked: Vault, source: Vault, tmp_path: Path
) -> None:
    """The one finds what the other has brought."""
    version, envelope = put(source, b"text")
    file = tmp_path / "envelope"
    file.write_bytes(envelope)
    script = _DIE.replace("os.kill(os.getpid(), signal.SIGKILL)", "vault.close()")
    run_python(script, clocked.layout.root, "", str(version.collected_us), file)
    assert not bring(clocked, version, envelope)
    with clocked.read() as db:
        assert index.count_by_scope(db, "my.notes") == 1
    assert parse_stamp(version.stamp) == version.collected_us
