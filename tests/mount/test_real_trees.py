"""Real input: botocore's documents and the standard library go in, with the tools people use."""

import gzip
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scopefs.model.envelope import decode_envelope
from scopefs.model.payload import Kind
from tests.mount.conftest import LATE_RELEASE
from tests.mount.reading import count_versions, list_stamps, wait_settled
from tests.mounting import Mounted, start_mount

_SPEC = importlib.util.find_spec("botocore")
assert _SPEC is not None, "botocore is to be installed for the tests: see .ci/requirements.txt"
DATA = Path(str(_SPEC.origin)).parent / "data"


@dataclass(frozen=True)
class Source:
    """A directory, the tool that copies it, and the scope that it goes to.

    In a scope of two segments most of its directories become subcategories: scopes of their own.
    """

    path: Path
    tool: str
    scope: str
    kinds: frozenset[Kind] = frozenset()
    """What its versions are, where that is known."""

    @property
    def files(self) -> list[Path]:
        """Its regular files."""
        return [path for path in self.path.rglob("*") if path.is_file() and not path.is_symlink()]


COPYING = {
    # Into an existing directory, all that the source holds.
    "cp -r": 'cp -r "$0/." "$1/"',
    "rsync -a": 'rsync -a "$0/" "$1/"',
    "tar x": 'tar c --format=posix -C "$0" . | tar x -C "$1"',
}
DOCUMENTS = frozenset({Kind.DOCUMENT})
BINARIES = frozenset({Kind.INLINE, Kind.BLOB})
SOURCES = ["documents", "packed", "unpacked", "library"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """botocore's .json documents, its .gz files as they are and unpacked, and Python's sources."""
    top = tmp_path_factory.mktemp("sources")
    for path in sorted(DATA.rglob("*.json*")):
        relative = path.relative_to(DATA)
        kind = "packed" if path.suffix == ".gz" else "documents"
        copy = top / kind / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
        if kind == "packed":
            unpacked = top / "unpacked" / relative.with_suffix("")
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            unpacked.write_bytes(gzip.decompress(path.read_bytes()))
    library = Path(sysconfig.get_path("stdlib"))
    ignored = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "config-*",
                                     "lib-dynload", "idlelib", "pydoc_data")  # fmt: skip
    shutil.copytree(library, top / "library", ignore=ignored, symlinks=True)
    return {
        "documents": Source(top / "documents", "cp -r", "botocore.documents", DOCUMENTS),
        "packed": Source(top / "packed", "tar x", "botocore.files.packed", BINARIES),
        "unpacked": Source(top / "unpacked", "rsync -a", "botocore.files.unpacked", DOCUMENTS),
        "library": Source(top / "library", "tar x", "python.library"),
    }


@pytest.fixture(scope="module")
def filled(
    sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Mounted]]:
    """A mount into which all sources were copied; the last in the list is the one that runs."""
    directory = tmp_path_factory.mktemp("trees")
    mounts = [start_mount(directory / "vault", directory / "mnt0")]
    try:
        for source in sources.values():
            target = mounts[0].make_scope(source.scope)
            subprocess.run(
                ["bash", "-euc", f"set -o pipefail; {COPYING[source.tool]}", source.path, target],
                check=True,
            )  # fmt: skip
        yield mounts
        mounts[-1].stop()
        for mount in mounts:
            mount.expected_alarms.append(LATE_RELEASE)
            mount.check_log()
    finally:
        for mount in mounts:
            mount.clean_up()
        shutil.rmtree(directory)


@pytest.fixture(scope="module", params=["mounted", "remounted"])
def mount(filled: list[Mounted], request: pytest.FixtureRequest) -> Mounted:
    """The filled mount, and the same vault unmounted and mounted again."""
    if request.param == "remounted":
        filled[-1].stop()
        filled.append(start_mount(filled[0].vault, filled[0].vault.parent / "mnt1"))
    return filled[-1]


@pytest.fixture(params=SOURCES)
def source(sources: dict[str, Source], request: pytest.FixtureRequest) -> Source:
    """Each source in turn."""
    found: Source = sources[request.param]
    return found


def test_sources_are_what_they_should_be(sources: dict[str, Source]) -> None:
    """The package's data are there, all of them."""
    assert len(sources["documents"].files) == len(list(DATA.rglob("*.json"))) > 900
    assert len(sources["packed"].files) == len(list(DATA.rglob("*.gz"))) > 900
    assert len(sources["unpacked"].files) == len(sources["packed"].files)
    assert len(sources["library"].files) > 500


def test_trees_are_equal(mount: Mounted, source: Source) -> None:
    """`diff -r` of source and mount is clean."""
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", source.path, mount.make_scope(source.scope)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def find_scopes(mount: Mounted, source: Source) -> list[Path]:
    """The directories of all scopes that a source was spread over."""
    top = mount.make_scope(source.scope)
    return [top, *(path for path in top.iterdir() if (path / ".versions").is_dir())]


def test_versions_are_the_files_that_are_not_empty(mount: Mounted, source: Source) -> None:
    """There is exactly one version for each regular file with something in it."""
    expected = [path for path in source.files if path.stat().st_size]
    scopes = find_scopes(mount, source)
    assert sum(count_versions(scope) for scope in scopes) == len(expected)
    assert (len(scopes) > 1) is (source.scope.count(".") == 1)


def test_versions_are_envelopes_of_the_files(mount: Mounted, source: Source) -> None:
    """Every version parses, and says which file it is of, of what kind, with its size and time."""
    found = {}
    for scope in find_scopes(mount, source):
        segments = scope.relative_to(mount.point).parts
        below = scope.relative_to(mount.make_scope(source.scope))
        for stamp in list_stamps(scope):
            content = (scope / ".versions" / stamp).read_bytes()
            envelope = decode_envelope(content)
            assert envelope.scope.segments == segments
            assert envelope.file is not None
            assert envelope.file.name is not None
            path = source.path / below / os.fsdecode(envelope.file.name)
            assert path not in found
            found[path] = envelope.file
            if envelope.file.kind is Kind.DOCUMENT:
                assert content.endswith(b'"data":' + path.read_bytes() + b"}\n")
    assert set(found) == {path for path in source.files if path.stat().st_size}
    if source.kinds:
        assert {facts.kind for facts in found.values()} == source.kinds
    for path, facts in found.items():
        assert facts.size_bytes == path.stat().st_size
        if source.tool != "cp -r":
            assert facts.mtime_ns == path.stat().st_mtime_ns


def test_second_rsync_transfers_nothing(mount: Mounted, source: Source) -> None:
    """rsync finds sizes and times as they were; after `cp -r`, which keeps no times, contents."""
    options = ["-rc"] if source.tool == "cp -r" else ["-a"]
    done = subprocess.run(
        ["rsync", *options, "--itemize-changes", f"{source.path}/",
         mount.make_scope(source.scope)],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    # The times of directories, which tar sets before it fills them, may be corrected.
    assert [line for line in done.stdout.splitlines() if not line.startswith(".d")] == []


def test_envelopes_stand_in_the_vault(mount: Mounted, source: Source) -> None:
    """Once settled, `data/` holds the envelopes of `.versions`, under the same names."""
    wait_settled(mount)
    for scope in find_scopes(mount, source):
        place = mount.vault / "data" / scope.relative_to(mount.point)
        stamps = list_stamps(scope)
        if not stamps:
            continue
        assert sorted(path.name for path in place.glob("*.json")) == stamps
        for stamp in stamps:
            view = scope / ".versions" / stamp
            assert (place / stamp).stat().st_size == view.stat().st_size
