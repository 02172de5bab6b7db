"""Events: numbered without a gap, chained, and equal in the index and in events/*.jsonl."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import InvalidQuery, NotFound
from scopefs.model.stamps import parse_collected_at
from scopefs.store import changes, publish
from scopefs.store.settle import append_lines
from tests.store.inspection import (
    NOON_US,
    Clock,
    check_chain,
    check_events,
    list_files,
    load_child,
    make_scope,
    query,
    read_event_lines,
)


def make_every_event(vault: Vault) -> set[str]:
    """Change the vault in every way; returns the words of the events."""
    version = vault.put("a.b", b"{}", name=b"\xff\n\xf0\x9f\x98\x80")
    scope = make_scope(vault, "a.b")
    node = load_child(vault, scope, b"\xff\n\xf0\x9f\x98\x80").node
    vault.apply(changes.apply_symlink, scope, b"link", b"to\xfe")
    vault.apply(changes.apply_link, node, scope, b"second")
    vault.apply(changes.apply_rename, scope, b"second", scope, b"third", replace=False)
    vault.apply(changes.apply_attributes, node, 0o600, 5)
    vault.apply(changes.apply_unlink, scope, b"third")
    with vault.new_draft() as draft:
        write = publish.Write(
            vault.owner_name, scope, node, None, None, 0o644, None, draft.seal(None)
        )
        vault.apply(publish.apply_show_empty, write)
    vault.delete("a.b", version.stamp)
    vault.apply(changes.apply_unlink, scope, b"link")
    vault.apply(changes.apply_mkdir, scope, b"Folder", 0o755)
    vault.apply(changes.apply_rmdir, scope, b"Folder")
    vault.delete_scope("a.b")
    vault.restore(*(entry.id for entry in vault.trash()))
    vault.delete("a.b", version.stamp, forever=True)
    return {event["op"] for event in vault.events()}


def test_lines_equal_the_rows_after_settle(vault: Vault) -> None:
    """Every kind of event stands in events/ as the very line whose hash the index has."""
    assert make_every_event(vault) == {
        "mkdir", "version", "symlink", "link", "rename", "attributes", "unlink", "empty",
        "delete", "rmdir", "delete-scope", "restore", "destroy",
    }  # fmt: skip
    vault.settle()
    check_events(vault)


def test_lines_equal_the_rows_after_close(tmp_path: Path) -> None:
    """A clean close appends everything."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        make_every_event(vault)
    with Vault.open(tmp_path / "v") as vault:
        assert len(read_event_lines(vault.layout.root)) == vault.status()["events"] > 0
        check_events(vault)


def test_lines_equal_the_rows_after_several_settles(tmp_path: Path) -> None:
    """Settling again appends what is new, once; a settle without news appends nothing."""
    for _ in range(3):
        with Vault.open(tmp_path / "v", create=True) as vault:
            for _ in range(3):
                vault.put("a.b", b"{}", name="n")
                vault.settle()
                vault.settle()
                check_events(vault)


def test_settled_lines_are_never_rewritten(vault: Vault) -> None:
    """What a settle appended stands unchanged before what the next appends."""
    vault.put("a.b", b"{}")
    vault.settle()
    before = read_event_lines(vault.layout.root)
    make_every_event(vault)
    vault.settle()
    assert read_event_lines(vault.layout.root)[: len(before)] == before


def test_one_file_per_day_and_one_chain_over_all(clocked: Vault, clock: Clock) -> None:
    """Events of different UTC days stand in different files; the chain goes on."""
    for _ in range(3):
        clocked.put("a.b", b"{}", name="n")
        clock.move(86_400)
    clocked.settle()
    assert list_files(clocked.layout.events) == [
        "2026-01-21.jsonl", "2026-01-22.jsonl", "2026-01-23.jsonl",
    ]  # fmt: skip
    check_events(clocked)


def test_time_grows_though_the_clock_steps_back(clocked: Vault, clock: Clock) -> None:
    """Events carry a strictly growing time whatever the clock does."""
    for step in (0, -3600, 0, 0, 7200, -86_400):
        clock.move(step)
        clocked.put("a.b", b"{}")
    clocked.settle()
    check_events(clocked)


def test_event_is_not_before_its_version(clocked: Vault, clock: Clock) -> None:
    """The time of a version's event is at or after its collectedAt."""
    clocked.put("a.b", b"{}")
    clock.move(-10)
    clocked.put("a.b", b"{}")
    clocked.put("c.d", b"{}")
    found = [event for event in clocked.events() if event["op"] == "version"]
    assert len(found) == 3
    assert all(
        parse_collected_at(event["at"]) >= parse_collected_at(event["collectedAt"])
        for event in found
    )


def test_refused_change_makes_no_event(vault: Vault) -> None:
    """A change that is refused leaves no number behind."""
    scope = make_scope(vault, "a.b")
    before = vault.status()["events"]
    with pytest.raises(NotFound):
        vault.apply(changes.apply_unlink, scope, b"nothing")
    vault.apply(changes.apply_mkdir, scope, b"F", 0o755)
    assert [event["seq"] for event in vault.events(after=before)] == [before + 1]


def test_line_begins_with_number_time_and_predecessor(vault: Vault) -> None:
    """The members that every line has come first, in this order."""
    make_every_event(vault)
    vault.settle()
    for line in read_event_lines(vault.layout.root):
        assert list(json.loads(line))[:4] == ["seq", "at", "prev", "op"]


def test_rows_know_the_scope_of_their_event(vault: Vault) -> None:
    """Events of a scope are found by the node of its directory."""
    vault.put("a.b", b"{}", name="n")
    vault.put("c.d", b"{}", name="n")
    node = make_scope(vault, "c.d")
    details = query(vault, "SELECT detail FROM events WHERE scope = ? ORDER BY seq", node)
    assert [json.loads(f"{{{row[0]}}}")["op"] for row in details] == ["mkdir", "version"]


# Appending after a cut


def cut_last_line(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def add_torn_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"seq":')


def add_torn_number(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"seq":99')


def add_garbage(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 5000)


@pytest.mark.parametrize("damage", [add_torn_line, add_torn_number, add_garbage])
def test_torn_last_line_is_cut_off(vault: Vault, damage: Callable[[Path], None]) -> None:
    """What a cut append left behind the last whole line goes before the next is appended."""
    vault.put("a.b", b"{}")
    vault.settle()
    damage(next(vault.layout.events.iterdir()))
    vault.put("a.b", b"{}")
    vault.settle()
    check_events(vault)


def test_repeated_append_is_made_once(vault: Vault) -> None:
    """If the row that says so was lost, what was appended is appended again in its place."""
    for _ in range(3):
        vault.put("a.b", b"{}")
    vault.settle()
    vault.apply(
        lambda transaction: transaction.db.execute(
            "UPDATE meta SET value = 2 WHERE key = 'settled_seq'"
        )
    )
    vault.settle()
    check_events(vault)


def test_repeated_append_over_a_torn_one(vault: Vault) -> None:
    """An append that was cut in the middle of its lines is made whole."""
    for _ in range(3):
        vault.put("a.b", b"{}")
    vault.settle()
    cut_last_line(next(vault.layout.events.iterdir()))
    vault.apply(
        lambda transaction: transaction.db.execute(
            "UPDATE meta SET value = 2 WHERE key = 'settled_seq'"
        )
    )
    vault.settle()
    check_events(vault)


def make_lines(first: int, last: int, width: int = 10) -> list[bytes]:
    """Lines that look like events."""
    return [b'{"seq":%d,"x":"%s"}' % (n, b"y" * width) for n in range(first, last + 1)]


@pytest.mark.parametrize("width", [1, 500, 65_520, 65_536, 200_000])
@pytest.mark.parametrize("kept", [0, 1, 3, 6])
def test_append_replaces_from_the_first_number_on(tmp_path: Path, width: int, kept: int) -> None:
    """Lines from the first one's number on are replaced, however long lines are."""
    path = tmp_path / "day.jsonl"
    append_lines(path, make_lines(1, 6, width))
    append_lines(path, make_lines(kept + 1, 7, width))
    assert path.read_bytes().splitlines() == make_lines(1, 7, width)


@pytest.mark.parametrize("rest", [b"{", b'{"seq":2', b'{"seq":3,"x":', b"x" * 70_000, b"\0"])
def test_append_to_a_file_of_nothing_but_a_torn_line(tmp_path: Path, rest: bytes) -> None:
    """A file that begins with half a line is begun anew."""
    path = tmp_path / "day.jsonl"
    path.write_bytes(rest)
    append_lines(path, make_lines(2, 3))
    assert path.read_bytes().splitlines() == make_lines(2, 3)


# The library's view


def test_events_page_forward(vault: Vault) -> None:
    """Pages after a number give all events once, oldest first."""
    make_every_event(vault)
    seen: list[int] = []
    while page := vault.events(after=seen[-1] if seen else 0, limit=3):
        seen += [event["seq"] for event in page]
    assert seen == list(range(1, vault.status()["events"] + 1))


def test_events_page_backward(vault: Vault) -> None:
    """Pages before a number give all events once, newest first."""
    make_every_event(vault)
    seen: list[int] = []
    while page := vault.events(before=seen[-1] if seen else 1 << 62, limit=3):
        seen += [event["seq"] for event in page]
    assert seen == list(range(vault.status()["events"], 0, -1))


def test_events_of_a_scope(vault: Vault) -> None:
    """Asked for a scope, only its own events come, not those of its subcategory."""
    vault.put("a.b", b"{}")
    vault.put("a.b.c", b"{}")
    ops = [(event["op"], event["scope"]) for event in vault.events(scope="a.b")]
    assert ops == [("mkdir", "a.b"), ("version", "a.b")]


def test_unknown_scope_has_no_events(vault: Vault) -> None:
    """A scope that never was has no events."""
    vault.put("a.b", b"{}")
    assert vault.events(scope="no.such") == []


def test_negative_limit_is_refused(vault: Vault) -> None:
    """A limit below nothing is a mistake of the caller."""
    with pytest.raises(InvalidQuery, match="negative"):
        vault.events(limit=-1)


def test_event_has_the_members_of_its_line(vault: Vault) -> None:
    """The library gives an event as its line has it, but for the hash of its predecessor."""
    vault.put("a.b", b"{}", name=b"\xff")
    vault.settle()
    lines = [json.loads(line) for line in read_event_lines(vault.layout.root)]
    check_chain(read_event_lines(vault.layout.root))
    for line in lines:
        del line["prev"]
    assert vault.events() == lines
    assert lines[-1]["nameHex"] == "ff"


def test_first_event_is_of_the_first_change(clocked: Vault) -> None:
    """Making a vault is no event; its first change has number 1 and the time of the clock."""
    assert clocked.events() == []
    make_scope(clocked, "a.b")
    first = clocked.events(limit=1)[0]
    assert (first["seq"], parse_collected_at(first["at"])) == (1, NOON_US)
