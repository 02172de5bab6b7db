"""Whatever stands in the files of a vault, it is read, or refused by the error for it.

vault.json, config.toml, lines of events/, staging/, partial/, and index.db with bytes changed: an
error of ours or the right answer, and always one of the two. `SCOPEFS_FUZZ` multiplies the number
of examples; `SCOPEFS_FUZZ_SEED` chooses those of index.db.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scopefs import Vault
from scopefs.errors import InvalidConfig, NewerFormat, NotAVault, ScopefsError
from scopefs.model.events import FIRST_HASH, encode_event_line, hash_event_line
from scopefs.store.config import load_config
from scopefs.store.index import open_index, write_meta
from scopefs.store.layout import Layout, find_home, load_vault_file
from scopefs.store.settle import append_lines
from tests.crash.world import abandon
from tests.model.strategies import json_texts, mutated

TIMES = int(os.environ.get("SCOPEFS_FUZZ", "1"))
fuzz = settings(
    max_examples=150 * TIMES, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
FLIPS = 60 * TIMES
PATIENCE_S = 120.0 + FLIPS

VAULT_JSON = (
    b'{"format":1,"id":"c9e64e79-af06-461b-aa3d-81cd3fc556e3",'
    b'"createdAt":"2026-11-20T22:45:05.404570Z"}\n'
)
CONFIG = b"""\
[scratch]
patterns = ["*~", "*.part", "Cache/"]
[trash]
keep_days = 30
"""
DEEP = b"[" * 100_000


def check_vault_file(path: Path, content: bytes) -> None:
    """Read it as vault.json."""
    path.write_bytes(content)
    try:
        found = load_vault_file(Layout(path.parent))
    except (NotAVault, NewerFormat):
        return
    assert found.format == 1


@fuzz
@given(st.binary() | json_texts | mutated(st.just(VAULT_JSON)))
def test_any_bytes_are_a_vault_file_or_none(tmp_path: Path, content: bytes) -> None:
    """`NotAVault`; or `NewerFormat`, for a vault of a newer scopefs."""
    check_vault_file(tmp_path / "vault.json", content)


def test_deep_nesting_is_no_vault_file(tmp_path: Path) -> None:
    """However deep it is."""
    check_vault_file(tmp_path / "vault.json", DEEP)
    check_vault_file(tmp_path / "vault.json", b'{"format":' + DEEP)


def check_config(path: Path, content: bytes) -> None:
    """Read it as config.toml, and do what it says."""
    path.write_bytes(content)
    try:
        config = load_config(path)
    except InvalidConfig:
        return
    days = config.trash.keep_days
    assert days is None or int(days * 86_400 * 1e6) >= 0


@fuzz
@given(st.binary() | st.text().map(str.encode) | mutated(st.just(CONFIG)))
def test_any_bytes_are_a_config_or_none(tmp_path: Path, content: bytes) -> None:
    """`InvalidConfig` alone."""
    check_config(tmp_path / "config.toml", content)


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + DEEP, b"[trash]\nkeep_days = inf\n", b"[trash]\nkeep_days = nan\n",
        b"[trash]\nkeep_days = -1\n", b"[trash]\nkeep_days = 1e300\n",
        b"a = " + b"1" * 5000, b"a = 9999-99-99\n", b'[scratch]\npatterns = ["\\u0000", "["]\n',
    ],
)  # fmt: skip
def test_odd_configs(tmp_path: Path, content: bytes) -> None:
    """Deep nesting; numbers that are none, or would empty what was removed a moment ago."""
    check_config(tmp_path / "config.toml", content)


# Events


def _make_lines(count: int) -> list[bytes]:
    lines = []
    previous = FIRST_HASH
    for seq in range(1, count + 1):
        detail = f'"op":"mkdir","node":{seq}'
        lines.append(encode_event_line(seq, seq * 1_000_000, previous, detail))
        previous = hash_event_line(lines[-1])
    return lines


LINES = _make_lines(12)
BEGINNINGS = st.integers(0, 12).map(lambda n: b"\n".join(LINES[:n]) + b"\n" * (n > 0))


def check_append(path: Path, found: bytes, first: int) -> None:
    """Append the lines from a number on to what was found: they are its end, each once."""
    path.write_bytes(found)
    new = LINES[first - 1 :]
    append_lines(path, new)
    content = path.read_bytes()
    tail = b"".join(line + b"\n" for line in new)
    assert content.endswith(tail)
    kept = content[: len(content) - len(tail)]
    assert found.startswith(kept)
    assert not kept or kept.endswith(b"\n")
    append_lines(path, new)
    assert path.read_bytes() == content


@fuzz
@given(st.binary() | mutated(BEGINNINGS), st.integers(1, 12))
def test_events_are_appended_to_whatever_is_there(tmp_path: Path, found: bytes, first: int) -> None:
    """What is whole and older stays; what is torn or newer goes."""
    check_append(tmp_path / "day.jsonl", found, first)


@pytest.mark.parametrize("cut", range(0, 250, 7))
def test_torn_lines_are_written_again(tmp_path: Path, cut: int) -> None:
    """Cut anywhere: the lines before the first new one stay, all of them."""
    whole = b"".join(line + b"\n" for line in LINES)
    path = tmp_path / "day.jsonl"
    check_append(path, whole[: len(whole) - cut], 6)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "found",
    [b'{"seq":' + b"9" * 5000 + b",\n", b'{"seq":\xb2,\n', b"\n" * 200_000, b"x" * 200_000,
     b'{"seq":' + b"1" * 200_000],
)  # fmt: skip
def test_odd_lines(tmp_path: Path, found: bytes) -> None:
    """A number that is too long to be one, no line at all, a line without an end."""
    check_append(tmp_path / "day.jsonl", found, 3)


# staging/ and partial/


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault whose process has died with writes of every state under way."""
    from scopefs.store.publish import StagedState
    from tests.crash.deeds import IN_FILE, INLINE, _open_draft, _seal, _stage, put
    from tests.crash.world import World

    root = tmp_path_factory.mktemp("died") / "a" / "vault"
    world = World(root)
    for number, state in enumerate((StagedState.DRAFT, StagedState.CLOSED), start=1):
        for size in (INLINE, IN_FILE):
            draft = _open_draft(world, world.make(size))
            write = _seal(world, draft, world.new_name(), 500 * number + size)
            _stage(world, write, state)
    put(world, "published", world.make(IN_FILE))
    put(world, "document", world.make(IN_FILE, document=True))
    abandon(world.vault)
    return root


@settings(fuzz, max_examples=25 * TIMES)
@given(st.data())
def test_staging_files_may_be_anything(died: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever has become of the bytes that were under way: the vault opens, and goes on."""
    root = tmp_path / "vault"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(died, root)
    for path in sorted(root.glob("staging/*/[0-9]*")):
        content = path.read_bytes()
        kind = data.draw(st.sampled_from(("as it is", "changed", "cut", "empty", "gone")))
        if kind == "gone":
            path.unlink()
        elif kind != "as it is":
            cut = data.draw(st.integers(0, len(content)))
            path.write_bytes({
                "changed": content[:cut] + b"!" + content[cut + 1 :], "cut": content[:cut],
                "empty": b"",
            }[kind])  # fmt: skip
    # A copy that lacks bytes is refused; this one stands for the vault itself.
    with closing(open_index(str(root / "index.db"))) as db:
        write_meta(db, "home", find_home(Layout(root)))
    with Vault.open(root) as vault:
        for version in vault.versions("my.files"):
            try:
                content = vault.read_payload(version)
            except ScopefsError:
                continue
            assert hashlib.sha256(content).digest() == version.payload_sha256
        vault.put("my.files", b"it goes on")


@pytest.mark.parametrize(
    ("name", "has_lock"),
    [(b"\xff", True), (b"\xff", False), (b"a'b\n", True), (b".new", True), (b"x.new", True),
     (b"x.new", False), (b"settle.1.tmp", True), (b"0" * 32, False)],
)  # fmt: skip
def test_odd_directories_in_staging(tmp_path: Path, name: bytes, has_lock: bool) -> None:
    """Whatever they are called: the vault opens."""
    with Vault.open(tmp_path / "v", create=True) as vault:
        vault.put("my.files", b"1")
    odd = os.fsencode(tmp_path / "v" / "staging") + b"/" + name
    os.mkdir(odd)
    if has_lock:
        Path(os.fsdecode(odd), "lock").touch()
    with Vault.open(tmp_path / "v") as vault:
        assert vault.read_payload(vault.get("my.files")) == b"1"
        vault.put("my.files", b"2")
        vault.settle()


@fuzz
@given(st.binary() | json_texts | mutated(st.just(
    b'{"at":"2026-11-20T22:22:03Z","reason":"x","scope":"my.files","name":"n","uid":0}'
)))  # fmt: skip
def test_any_bytes_are_a_story_or_none(died: Path, content: bytes) -> None:
    """Of an interrupted write: it can be listed, whatever is told about it."""
    check_story(died, content)


def test_deep_nesting_is_no_story(died: Path) -> None:
    """However deep it is."""
    check_story(died, b'{"reason":' + DEEP)


def check_story(root: Path, content: bytes) -> None:
    """Read it as the story of an interrupted write."""
    from scopefs.store.partial import list_partial, name_of_story

    stem = root / "partial" / "2026-11-20T22-22-03Zu624502-0aca7344"
    stem.with_suffix(".bin").write_bytes(b"bytes")
    stem.with_suffix(".json").write_bytes(content)
    (story,) = (found for found in list_partial(Layout(root)) if found["id"] == "0aca7344")
    assert story["sizeBytes"] == 5
    name_of_story(story)
    stem.with_suffix(".bin").unlink()
    stem.with_suffix(".json").unlink()


# index.db


def _make_index(root: Path) -> dict[str, str]:
    """A vault with a little of everything; hashes of all its payloads."""
    contents = [b"tiny", b'{"a":1}', bytes(range(256)) * 80, bytes(range(256)) * 400]
    with Vault.open(root, create=True) as vault:
        for number, content in enumerate(contents):
            for scope in ("my.files", "my.files.sub", "other.things"):
                vault.put(scope, content, name=f"f{number}")
                vault.put(scope, content, name=f"F/f{number}")
        vault.delete("my.files", vault.versions("my.files")[0].stamp)
        vault.delete_scope("other.things")
    return {hashlib.sha256(content).hexdigest(): "" for content in contents}


_FLIP_FOR_EVER = """
import sys
from pathlib import Path
from tests.store.test_fuzz import flip_many
flip_many(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
"""


def flip_many(root: Path, seed: int, count: int) -> None:
    """Change bytes of index.db, use the vault, and tell what became of it; so often."""
    original = (root / "index.db").read_bytes()
    known = set(json.loads((root.parent / "known").read_text()))
    for number in range(seed, seed + count):
        print(number, end=" ", flush=True)
        work = root.parent / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(root, work)
        (work / "index.db").write_bytes(_flip(original, random.Random(number)))
        try:
            _use(work, known)
        except Exception as error:
            import traceback

            last = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
            print(told[:300].replace("\n", " "), flush=True)
        else:
            print("fine", flush=True)


def _flip(content: bytes, source: random.Random) -> bytes:
    found = bytearray(content)
    page = 2048
    kind = source.random()
    if kind < 0.7:
        for _ in range(source.choice((1, 1, 2, 20, 300))):
            found[source.randrange(len(found))] = source.randrange(256)
    elif kind < 0.8:
        del found[source.randrange(len(found)) :]
    elif kind < 0.9:
        at, other = (page * source.randrange(len(found) // page) for _ in range(2))
        found[at : at + page] = found[other : other + page]
    else:
        at = page * source.randrange(len(found) // page)
        found[at : at + page] = source.randbytes(page)
    return bytes(found)


def _use(root: Path, known: set[str]) -> None:
    """Everything that one does with a vault; our errors are answers."""
    from contextlib import suppress

    with suppress(ScopefsError), Vault.open(root) as vault:
        for call in (vault.status, vault.scopes, vault.events, vault.trash, vault.settle):
            with suppress(ScopefsError):
                call()
        for scope in ("my.files", "my.files.sub", "other.things"):
            with suppress(ScopefsError):
                list(vault.names(scope))
            versions = []
            with suppress(ScopefsError):
                versions = vault.versions(scope)
            for version in versions:
                for read in (vault.read_envelope, vault.read_payload):
                    with suppress(ScopefsError):
                        content = read(version)
                        if read == vault.read_payload:
                            assert hashlib.sha256(content).hexdigest() in known
            with suppress(ScopefsError):
                vault.put(scope, b"tiny", name="f1")
            with suppress(ScopefsError):
                vault.get(scope, name="F/f2", at="9999")
            with suppress(ScopefsError):
                vault.delete_scope(scope)
            with suppress(ScopefsError, IndexError):
                vault.restore(vault.trash(limit=1)[0].id)
        with suppress(ScopefsError):
            vault.empty_trash()


def test_index_with_changed_bytes(tmp_path: Path) -> None:
    """An error of ours, or the right bytes; no other error, and no end that never comes."""
    seed = int(os.environ.get("SCOPEFS_FUZZ_SEED", "1"))
    known = _make_index(tmp_path / "vault")
    (tmp_path / "known").write_text(json.dumps(list(known)))
    arguments = [str(tmp_path / "vault"), str(seed), str(FLIPS)]
    with open(tmp_path / "told", "wb") as told:
        subprocess.run(
            [sys.executable, "-c", _FLIP_FOR_EVER, *arguments], stdin=subprocess.DEVNULL,
            stdout=told, stderr=subprocess.DEVNULL, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    lines = (tmp_path / "told").read_text().splitlines()
    wrong = [line for line in lines if not line.endswith(" fine")]
    assert not wrong
    assert len(lines) == FLIPS
