"""Verification: a healthy vault has no problem, and each kind of damage is found as what it is."""

import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.store import changes
from scopefs.store.checks import CHECKS, Checked
from scopefs.store.checks import __doc__ as invariants
from scopefs.store.problems import Problem
from scopefs.store.verify import Verification
from tests.store.everything import fill, write
from tests.store.inspection import expect_none, find_problems, make_scope, query

DOCUMENT, INLINE, BLOB = b'{"a": 1}', b"text", bytes(range(256)) * 1000


@pytest.fixture
def small(vault: Vault) -> Vault:
    """A vault with a version of each kind, one in the trash, a scratch file, a link; settled."""
    vault.put("my.files", DOCUMENT, name="a.json")
    vault.put("my.files", INLINE, name="b.txt")
    vault.put("my.files", BLOB, name="F/c.bin")
    vault.put("my.files", b"gone", name="d.txt")
    vault.delete("my.files", vault.get("my.files", name="d.txt").stamp)
    write(vault, "my.files", b"s~", b"scratch")
    vault.apply(changes.apply_symlink, make_scope(vault, "my.files"), b"l", b"a.json")
    vault.settle()
    expect_none(find_problems(vault))
    return vault


def codes(vault: Vault) -> set[str]:
    """The numbers of the invariants that do not hold; each finding says all that it has to."""
    found = find_problems(vault)
    for problem in found:
        assert problem.where
        assert problem.what
        assert problem.do
    return {problem.code for problem in found}


def path_of(vault: Vault, name: str) -> Path:
    """Where the envelope of a name's version stands."""
    return vault.layout.root / vault.get("my.files", name=name).path


def flip(path: Path, offset: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def find_blob(vault: Vault) -> Path:
    return next(path for path in vault.layout.blobs.rglob("*") if path.is_file())


def find_trashed(vault: Vault) -> Path:
    return next(path for path in vault.layout.trash.rglob("*") if path.is_file())


def find_day(vault: Vault) -> Path:
    return next(vault.layout.events.iterdir())


# Damage to files


def truncate_envelope(vault: Vault) -> None:
    os.truncate(path_of(vault, "a.json"), 100)


def empty_envelope(vault: Vault) -> None:
    os.truncate(path_of(vault, "a.json"), 0)


def flip_head(vault: Vault) -> None:
    flip(path_of(vault, "b.txt"), 30)


def flip_tail(vault: Vault) -> None:
    flip(path_of(vault, "b.txt"), -2)


def flip_document(vault: Vault) -> None:
    flip(path_of(vault, "a.json"), -5)


def flip_inline(vault: Vault) -> None:
    flip(path_of(vault, "b.txt"), -8)


def flip_blob_envelope(vault: Vault) -> None:
    flip(path_of(vault, "F/c.bin"), -5)


def flip_trashed(vault: Vault) -> None:
    flip(find_trashed(vault), -8)


def remove_envelope(vault: Vault) -> None:
    path_of(vault, "a.json").unlink()


def remove_trashed(vault: Vault) -> None:
    find_trashed(vault).unlink()


def envelope_is_a_link(vault: Vault) -> None:
    path = path_of(vault, "a.json")
    path.rename(vault.layout.root / "config.toml")
    path.symlink_to(vault.layout.root / "config.toml")


def move_envelope(vault: Vault) -> None:
    path = path_of(vault, "a.json")
    path.rename(path.with_name("2001-01-01T00-00-00Z.json"))


def copy_envelope(vault: Vault) -> None:
    path = path_of(vault, "a.json")
    path.with_name("2001-01-01T00-00-00Z.json").write_bytes(path.read_bytes())


def stray_in_data(vault: Vault) -> None:
    (vault.layout.data / "my" / "files" / "x.txt").write_bytes(b"x")


def stray_with_an_odd_name(vault: Vault) -> None:
    (vault.layout.data / "my" / "files" / os.fsdecode(b"\xff.json")).write_bytes(b"x")


def stray_at_the_top_of_data(vault: Vault) -> None:
    (vault.layout.data / "x").write_bytes(b"x")


def stray_in_trash(vault: Vault) -> None:
    (vault.layout.trash / "x").write_bytes(b"x")


def stray_link_in_data(vault: Vault) -> None:
    (vault.layout.data / "my" / "files" / "l").symlink_to("nowhere")


def remove_blob(vault: Vault) -> None:
    find_blob(vault).unlink()


def truncate_blob(vault: Vault) -> None:
    os.truncate(find_blob(vault), 1000)


def flip_blob(vault: Vault) -> None:
    flip(find_blob(vault), 200_000)


def stray_blob(vault: Vault) -> None:
    (vault.layout.blobs / "00").mkdir(exist_ok=True)
    (vault.layout.blobs / "00" / ("0" * 64)).write_bytes(b"x")


def misplaced_blob(vault: Vault) -> None:
    path = find_blob(vault)
    (vault.layout.blobs / "zz").mkdir()
    path.rename(vault.layout.blobs / "zz" / path.name)


def cut_events(vault: Vault) -> None:
    os.truncate(find_day(vault), find_day(vault).stat().st_size - 20)


def remove_last_event(vault: Vault) -> None:
    lines = find_day(vault).read_bytes().splitlines(keepends=True)
    find_day(vault).write_bytes(b"".join(lines[:-1]))


def remove_middle_event(vault: Vault) -> None:
    lines = find_day(vault).read_bytes().splitlines(keepends=True)
    find_day(vault).write_bytes(b"".join(lines[:3] + lines[4:]))


def repeat_event(vault: Vault) -> None:
    lines = find_day(vault).read_bytes().splitlines(keepends=True)
    find_day(vault).write_bytes(b"".join(lines[:3] + lines[2:]))


def swap_events(vault: Vault) -> None:
    lines = find_day(vault).read_bytes().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    find_day(vault).write_bytes(b"".join(lines))


def flip_event(vault: Vault) -> None:
    flip(find_day(vault), 200)


def remove_events(vault: Vault) -> None:
    find_day(vault).unlink()


def stray_in_events(vault: Vault) -> None:
    (vault.layout.events / "x").write_bytes(b"x")


def foreign_day(vault: Vault) -> None:
    (vault.layout.events / "2001-01-01.jsonl").write_bytes(b"{}\n")


def stray_in_staging(vault: Vault) -> None:
    (vault.layout.staging / "x").write_bytes(b"x")


def stray_directory_in_staging(vault: Vault) -> None:
    (vault.layout.staging / "x").mkdir()


def stray_in_partial(vault: Vault) -> None:
    (vault.layout.partial / "x").write_bytes(b"x")


def story_alone(vault: Vault) -> None:
    (vault.layout.partial / "2026-11-20T22-22-03Zu624502-0aca7344.json").write_bytes(b"{}")


def stray_at_the_top(vault: Vault) -> None:
    (vault.layout.root / "notes.txt").write_bytes(b"x")


def damaged_description(vault: Vault) -> None:
    vault.layout.vault_json.write_bytes(b"{")


def another_vaults_description(vault: Vault) -> None:
    found = json.loads(vault.layout.vault_json.read_bytes())
    vault.layout.vault_json.write_text(json.dumps(found | {"id": "another"}))


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (truncate_envelope, {"I1"}), (empty_envelope, {"I1"}), (flip_head, {"I1"}),
        (flip_tail, {"I1"}), (flip_document, {"I1"}), (flip_inline, {"I1"}),
        (flip_blob_envelope, {"I1"}), (flip_trashed, {"I1"}), (remove_envelope, {"I1"}),
        (remove_trashed, {"I1"}), (envelope_is_a_link, {"I1"}), (move_envelope, {"I1", "I3"}),
        (copy_envelope, {"I3"}), (stray_in_data, {"I3"}), (stray_with_an_odd_name, {"I3"}),
        (stray_at_the_top_of_data, {"I3"}), (stray_in_trash, {"I3"}), (stray_link_in_data, {"I3"}),
        (remove_blob, {"I2"}), (truncate_blob, {"I2"}), (flip_blob, {"I2"}), (stray_blob, {"I4"}),
        (misplaced_blob, {"I2", "I4"}), (cut_events, {"I6"}), (remove_last_event, {"I6"}),
        (remove_middle_event, {"I6"}), (repeat_event, {"I6"}), (swap_events, {"I6"}),
        (flip_event, {"I6"}), (remove_events, {"I6"}), (stray_in_events, {"I6"}),
        (foreign_day, {"I6"}), (stray_in_staging, {"I16"}), (stray_directory_in_staging, {"I16"}),
        (stray_in_partial, {"I17"}), (story_alone, {"I17"}), (stray_at_the_top, {"I19"}),
        (damaged_description, {"I19"}), (another_vaults_description, {"I19"}),
    ],
)  # fmt: skip
def test_damaged_file(small: Vault, damage: Callable[[Vault], None], wanted: set[str]) -> None:
    """Whatever happened to a file, the invariants that it breaks are named, and no others."""
    damage(small)
    assert codes(small) == wanted


def test_misplaced_envelope_names_its_place(small: Vault) -> None:
    """Who moves it back has repaired it."""
    path = path_of(small, "a.json")
    moved = path.with_name("2001-01-01T00-00-00Z.json")
    path.rename(moved)
    (found,) = [problem for problem in find_problems(small) if problem.code == "I3"]
    assert str(path.relative_to(small.layout.root)) in found.what
    moved.rename(path)
    assert codes(small) == set()


# Damage to rows


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("UPDATE data_files SET scope = 'no.such' WHERE id = 1", {"I1", "I5", "I7", "I8"}),
        ("UPDATE data_files SET collected_us = collected_us + 1 WHERE id = 1", {"I1", "I7"}),
        ("UPDATE data_files SET collected_at = 'x' WHERE id = 1", {"I5", "I7"}),
        ("UPDATE data_files SET payload_size = 7 WHERE id = 1", {"I1", "I8"}),
        ("UPDATE data_files SET payload_sha256 = zeroblob(32) WHERE id = 1", {"I1"}),
        ("UPDATE data_files SET payload_sha256 = x'' WHERE id = 1", {"I1", "I7"}),
        ("UPDATE data_files SET kind = 9 WHERE id = 1", {"I7"}),
        ("UPDATE data_files SET name = x'' WHERE id = 1", {"I1", "I7"}),
        ("UPDATE data_files SET node = 1 WHERE id = 1", {"I7", "I12"}),
        ("UPDATE data_files SET path = 'data/x' WHERE id = 1", {"I1", "I3", "I7"}),
        ("UPDATE data_files SET mtime_ns = 5 WHERE id = 1", {"I1"}),
        ("UPDATE data_files SET deleted_seq = 2 WHERE id = 1", {"I7", "I8", "I12", "I18"}),
        ("DELETE FROM data_files WHERE id = 1", {"I3", "I8", "I12"}),
        ("UPDATE scopes SET versions = 7", {"I8"}),
        ("UPDATE scopes SET bytes = 7", {"I8"}),
        ("UPDATE scopes SET last_us = 7", {"I8"}),
        ("UPDATE nodes SET kind = 9 WHERE kind = 5", {"I9", "I12"}),
        ("UPDATE nodes SET kind = 3 WHERE kind = 5", {"I12"}),
        ("UPDATE nodes SET scope = 99 WHERE kind = 5", {"I9"}),
        ("UPDATE meta SET value = 3 WHERE key = 'next_node'", {"I9", "I10"}),
        ("INSERT INTO nodes(id, kind, scope) VALUES(0, 4, 3)", {"I9"}),
        ("DELETE FROM nodes WHERE kind = 5", {"I10", "I12"}),
        ("UPDATE names SET name = x'2f' WHERE name = x'6c'", {"I10"}),
        ("UPDATE names SET parent = 99 WHERE name = x'6c'", {"I10", "I11"}),
        ("UPDATE names SET node = 99 WHERE name = x'6c'", {"I10"}),
        ("UPDATE names SET from_seq = 99 WHERE name = x'6c'", {"I10"}),
        ("UPDATE names SET until_seq = 1 WHERE name = x'6c'", {"I10"}),
        ("UPDATE names SET came_from = 99 WHERE name = x'6c'", {"I10"}),
        ("UPDATE names SET slot = 1 << 50 WHERE name = x'6c'", {"I10"}),
        ("INSERT INTO names(parent, name, node, from_seq, slot) SELECT parent, name, node, 2, 1"
         " FROM names WHERE name = x'6c'", {"I10"}),
        ("UPDATE names SET until_seq = 8 WHERE name = x'46'", {"I11"}),
        ("UPDATE names SET parent = 1 WHERE name = x'6c'", {"I11"}),
        ("UPDATE shown SET version = 99 WHERE version = 1", {"I12"}),
        ("UPDATE shown SET version = 2 WHERE version = 1", {"I12"}),
        ("UPDATE shown SET version = 4 WHERE version = 1", {"I12"}),
        ("UPDATE shown SET mode = -1 WHERE version = 1", {"I12"}),
        ("UPDATE shown SET target = NULL WHERE target IS NOT NULL", {"I12"}),
        ("UPDATE shown SET from_seq = 99 WHERE version = 1", {"I12"}),
        ("DELETE FROM shown WHERE node = (SELECT id FROM nodes WHERE kind = 5)", {"I9"}),
        ("UPDATE scratch SET size = 3", {"I14"}),
        ("UPDATE scratch SET payload = x'00'", {"I14"}),
        ("UPDATE scratch SET payload = NULL", {"I14"}),
        ("UPDATE scratch SET node = 3", {"I14"}),
        ("UPDATE events SET detail = '\"op\":\"x\"' WHERE seq = 3", {"I5", "I6"}),
        ("UPDATE events SET detail = '{' WHERE seq = 3", {"I5", "I6"}),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 3", {"I5", "I6"}),
        ("UPDATE events SET at_us = at_us - 1000000 WHERE seq = 3", {"I5", "I6"}),
        ("DELETE FROM events WHERE seq = 3", {"I5", "I6"}),
        ("UPDATE meta SET value = 'x' WHERE key = 'vault_id'", {"I19"}),
    ],
)  # fmt: skip
def test_damaged_row(small: Vault, statement: str, wanted: set[str]) -> None:
    """A row that says something wrong is found, by the invariant that it breaks."""
    small.apply(lambda transaction: transaction.db.execute(statement))
    assert codes(small) == wanted


def stage(vault: Vault, **members: object) -> None:
    """A row of staged, as a write that was closed leaves it, but for what is given."""
    row = {"owner": "a" * 32, "state": 1, "scope": make_scope(vault, "my.files"), "mode": 0,
           "size": 0, "sha256": bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c"
           "a495991b7852b855"), "payload": b""} | members  # fmt: skip
    vault.apply(
        lambda transaction: transaction.db.execute(
            f"INSERT INTO staged({','.join(row)}) VALUES({','.join('?' * len(row))})",
            tuple(row.values()),
        )
    )


@pytest.mark.parametrize(
    "members",
    [
        {"size": 1}, {"payload": b"x"}, {"state": 7}, {"scope": 99}, {"owner": "x"},
        {"payload": None}, {"payload": None, "file": "../x"},
        {"payload": None, "file": "a" * 32 + "/1"}, {"state": 3, "version": 99},
    ],
)  # fmt: skip
def test_damaged_staged_row(small: Vault, members: dict[str, object]) -> None:
    """A staged write whose bytes or version are not there."""
    with small._settler.hold():
        stage(small, **members)
        checked = Checked(small.layout, small.read, _hold_already)
        found = [
            problem for page in CHECKS["staged writes"](checked, []) for problem in page.problems
        ]
        small.apply(lambda transaction: transaction.db.execute("DELETE FROM staged"))
    assert {problem.code for problem in found} == {"I13"}


class _hold_already:
    """The lock is held by the test."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("path", ["/etc/passwd", "index.db", "data/../index.db", ""])
def test_damaged_move(small: Vault, path: str) -> None:
    """A move that leads out of the places where files of the vault stand."""
    with small._settler.hold():
        small.apply(
            lambda transaction: transaction.db.execute(
                "INSERT INTO moves(source, target) VALUES(?, '')", (path,)
            )
        )
        found = find_problems(small, "moves")
        small.apply(lambda transaction: transaction.db.execute("DELETE FROM moves"))
    assert {problem.code for problem in found} == {"I15"}


def test_wrong_digests(vault: Vault) -> None:
    """Digests that are not those of their payload would make good bytes unreadable."""
    vault.put("my.files", os.urandom(3 << 20), name="a")
    vault.put("my.files", b'{"x":"' + b"y" * (2 << 20) + b'"}', name="b")
    vault.settle()
    assert codes(vault) == set()
    vault.apply(
        lambda transaction: transaction.db.execute("UPDATE chunks SET digests = zeroblob(48)")
    )
    assert [problem.code for problem in find_problems(vault)] == ["I20", "I20"]


def test_index_whose_pages_are_damaged(small: Vault, tmp_path: Path) -> None:
    """What SQLite cannot read is told, and the other checks go on."""
    small.close()
    # The last page of the names.
    db = apsw.Connection(str(small.layout.index))
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'names'").fetchall()[0][0]
    size = db.execute("PRAGMA page_size").fetchall()[0][0]
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    with small.layout.index.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    (small.layout.root / "x").write_bytes(b"x")
    with Vault.open(small.layout.root) as vault:
        found = find_problems(vault)
    assert {problem.code for problem in found} == {"I19"}
    assert {"x", "index.db (names)"} <= {problem.where for problem in found}


# Health


def test_everything_is_well(vault: Vault, tmp_path: Path) -> None:
    """A vault to which everything was done is whole, settled or not."""
    fill(vault, tmp_path / "other")
    expect_none(find_problems(vault))
    vault.put("my.files", b"not settled yet", name="x")
    vault.delete("my.files", vault.put("my.files", BLOB, name="x").stamp)
    expect_none(find_problems(vault))


def test_under_load(vault: Vault) -> None:
    """What changes meanwhile is no problem: nothing is found while others write, move, remove."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        source = random.Random(seed)
        try:
            with Vault.open(vault.layout.root) as other:
                while not stop.is_set():
                    scope = source.choice(["my.files", "my.things"])
                    content = source.randbytes(source.choice([5, 20_000, 100_000]))
                    version = other.put(scope, content, name=f"f{source.randrange(5)}-{seed}")
                    if source.random() < 0.3:
                        other.delete(scope, version.stamp, forever=source.random() < 0.5)
                    if source.random() < 0.1:
                        other.settle()
                    if source.random() < 0.05:
                        other.delete_scope(f"my.scope{seed}", forever=source.random() < 0.5)
                        other.restore(*(entry.id for entry in other.trash(limit=1)))
                    other.put(f"my.scope{seed}", content, name="n")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        found: list[Problem] = []
        for _ in range(15):
            found += find_problems(vault)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [error for error in errors if "in the trash" not in str(error)] == []
    expect_none(found)
    vault.settle()
    expect_none(find_problems(vault))


# Interrupted


def test_interrupted_verification_goes_on(small: Vault) -> None:
    """Cut after any page, it goes on from there, and finds the same as in one go."""
    flip_blob(small)
    stray_in_data(small)
    whole = small.verification()
    wanted = list(whole.run(lambda _name, _count: None))
    steps = 0
    found: list[Problem] = []
    while True:
        run = small.verification(resume=steps > 0)
        assert run.is_resumed == (steps > 0)
        pages = 0

        def interrupt(_name: str, count: int) -> None:
            nonlocal pages
            pages += bool(count)
            if pages > 1:
                raise KeyboardInterrupt

        try:
            found += list(run.run(interrupt))
            break
        except KeyboardInterrupt:
            steps += 1
    assert steps > 10
    assert run.progress.problems == wanted
    for name, count in whole.progress.counts.items():
        # Of a directory that was not through, all files are looked at again.
        assert run.progress.counts[name] >= count
    assert not (small.layout.logs / "verify.json").exists()


def test_resuming_in_the_middle_of_events(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and rows are compared from the middle of a day on."""
    monkeypatch.setattr("scopefs.store.checks.events._PAGE", 3)
    for n in range(10):
        vault.put("my.files", b"%d" % n, name="a")
    vault.settle()
    checked = Checked(vault.layout, vault.read, vault._settler.hold)
    pages = list(CHECKS["events"](checked, []))
    assert len(pages) == 4
    for page in pages:
        assert [p.problems for p in CHECKS["events"](checked, page.cursor)] == [
            [] for _ in pages[pages.index(page) + 1 :]
        ]
    lines = find_day(vault).read_bytes().splitlines(keepends=True)
    find_day(vault).write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b"9", b"8"))
    assert [p.problems for p in CHECKS["events"](checked, pages[0].cursor)][-1] != []


def test_state_of_another_vault_is_not_taken(small: Vault) -> None:
    """A state that cannot be read, or is of another vault, begins anew."""
    for content in (b"{", b"", small.verification().progress.vault.encode()):
        (small.layout.logs / "verify.json").write_bytes(content)
        assert not small.verification(resume=True).is_resumed


def test_rate_is_kept(vault: Vault) -> None:
    """Reading is slowed down to what was asked for."""
    import time

    vault.put("my.files", os.urandom(300_000), name="a")
    vault.settle()
    started = time.monotonic()
    list(vault.verification(rate_bytes=1e6).run(lambda _name, _count: None))
    assert time.monotonic() - started > 0.15


def test_regression_rate_was_kept_on_the_first_page_alone(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From page to page; and time in which nothing was read is not made up for."""
    import time

    slept = [0.0]
    monkeypatch.setattr(time, "sleep", lambda s: slept.append(slept[-1] + s))
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + slept[-1])
    monkeypatch.setattr("scopefs.store.checks.files._PAGE", 1)
    for number in range(10):
        vault.put("my.files", os.urandom(300_000), name=str(number))
    vault.settle()
    slept.append(100.0)
    list(vault.verification(rate_bytes=1e6).run(lambda _name, _count: None))
    assert slept[-1] - 100 == pytest.approx(3.0, abs=0.2)


def test_invariants_are_numbered_without_gaps() -> None:
    """Each has its number, and each number that the checks report is explained."""
    numbers = [
        int(line.split()[0][1:]) for line in str(invariants).splitlines() if line.startswith("I")
    ]
    assert numbers == list(range(1, len(numbers) + 1))
    used = set()
    for path in (Path(__file__).parents[2] / "scopefs" / "store" / "checks").glob("*.py"):
        used |= {int(text.split('"')[0]) for text in path.read_text().split('"I')[1:]
                 if text.split('"')[0].isdigit()}  # fmt: skip
    assert used == set(numbers)


def test_unreadable_rows_of_the_whole_vault(small: Vault) -> None:
    """Rows of every table may hold anything: no check fails with an error of its own."""
    for (table,) in query(small, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
        if table in ("sqlite_sequence", "meta"):
            continue
        names = [row[1] for row in query(small, f"PRAGMA table_info({table})")]
        for column in names:
            # Rolled back by the exception: the next column starts from a healthy vault.
            with pytest.raises(_Enough):
                small.apply(lambda db, t=table, c=column: _garble(small, db, t, c))


class _Enough(Exception):
    pass


def _garble(vault: Vault, transaction, table: str, column: str) -> None:
    try:
        transaction.db.execute(f"UPDATE {table} SET {column} = x'ff' || {column}")
    except apsw.ConstraintError:
        raise _Enough from None
    except apsw.MismatchError:
        raise _Enough from None

    class Inside:
        def __enter__(self) -> apsw.Connection:
            return transaction.db

        def __exit__(self, *_: object) -> None: ...

    checked = Checked(vault.layout, Inside, _hold_already)  # type: ignore[arg-type]
    for _ in Verification(checked, vault.id, "", resume=False).run(lambda _name, _count: None):
        pass
    raise _Enough
