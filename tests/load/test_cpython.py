"""CPython's own tests of its file modules, in a mount: they pass or skip as on the disk below.

Known differences stand in `DIFFERENT` and in docs/contributing.md, each with its reason. One that
is no more fails too, so that the list stays true.
"""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.load.loading import HANG_S, Start

MODULES = ["test_shutil", "test_mailbox", "test_zipfile", "test_tarfile", "test_tempfile"]

NO_XATTR = "semantics U1: extended attributes are not supported"
NO_FIFO = "semantics U2: pipes are not supported"
DIFFERENT = {
    "test_shutil.TestCopy.test_copyxattr": NO_XATTR,
    "test_shutil.TestCopy.test_copyxattr_symlinks": NO_XATTR,
    "test_shutil.TestCopy.test_copy2_xattr": NO_XATTR,
    "test_shutil.TestCopy.test_copyfile_named_pipe": NO_FIFO,
    "test_shutil.TestCopyTree.test_copytree_named_pipe": NO_FIFO,
    "test_tarfile.TestExtractionFilters.test_pipe": NO_FIFO,
    "test_mailbox.TestMaildir.test_clean": "semantics N4: the access time is always the mtime",
}

Outcomes = dict[str, str]


def find_python() -> str:
    """The distribution's Python, or ours: the first that has its own tests."""
    for python in ("/usr/bin/python3", sys.executable):
        if (
            subprocess.run(
                [python, "-c", "import test.test_tarfile"], capture_output=True
            ).returncode
            == 0
        ):
            return python
    raise AssertionError("no Python here has its own tests: scripts/test installs them")


def run_module(module: str, directory: Path, report: Path) -> Outcomes:
    """Run a module of tests with all its files in a directory; returns how each test ended."""
    done = subprocess.run(
        [find_python(), "-m", "test", "--junit-xml", report, module], cwd=directory,
        env={**os.environ, "TMPDIR": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_S,
    )  # fmt: skip
    assert report.exists(), done.stdout + done.stderr
    outcomes: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "").removeprefix("test.")
        ended = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        # Of a test with parts, the worst.
        if ended or name not in outcomes:
            outcomes[name] = ended[0] if ended else "passed"
    assert outcomes, done.stdout + done.stderr
    return outcomes


@pytest.mark.parametrize("module", MODULES)
def test_module_ends_as_on_the_disk_below(start: Start, tmp_path: Path, module: str) -> None:
    """Each test of the module ends in the mount as on the file system below, but for known ones."""
    below = tmp_path / "below"
    below.mkdir()
    expected = run_module(module, below, tmp_path / "below.xml")
    mounted = start()
    inside = mounted.make_scope() / "Work"
    inside.mkdir()
    found = run_module(module, inside, tmp_path / "inside.xml")
    assert found.keys() == expected.keys()
    different = {name for name in found if found[name] != expected[name]}
    # Not each Python has each of them.
    assert different == DIFFERENT.keys() & found.keys(), {
        name: f"{found[name]}, below {expected[name]}" for name in different
    }
    mounted.stop()
    mounted.check_log()
