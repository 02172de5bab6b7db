"""The distribution: it is built from the tree, holds all that is needed, and runs elsewhere."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from scopefs import __version__

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, **options: object) -> str:
    """Run a command outside of the tree and of this Python's environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd="/", env=kept,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_venv(path: Path) -> Path:
    """A new environment; returns its Python."""
    run(sys.executable, "-m", "venv", path)
    return path / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    """Install with the versions that everybody has."""
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "-c", ROOT / ".ci" / "requirements.txt", *what)  # fmt: skip


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` makes: an archive of the sources, and a wheel from that."""
    place = tmp_path_factory.mktemp("dist")
    python = make_venv(place / "venv")
    install(python, "build")
    run(python, "-m", "build", "--outdir", place / "dist", ROOT)
    return place / "dist"


def list_package() -> set[str]:
    """The package's files, as git knows or would take them."""
    found = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard", "scopefs"], cwd=ROOT, text=True
    )
    names = {name for name in found.splitlines() if (ROOT / name).is_file()}
    # A directory may be a link to another place of the tree.
    for name in found.splitlines():
        if (ROOT / name).is_dir():
            names |= {f"{name}/{path.name}" for path in (ROOT / name).iterdir()}
    return names


def test_sources_are_whole(dist: Path) -> None:
    """The archive has the package, the tests, the documents and scripts, and nothing made."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert path.name == f"scopefs-{__version__}.tar.gz"
    assert list_package() <= names
    assert {"README.md", "LICENSE", "pyproject.toml", "docs/format.md", "scripts/run"} <= names
    assert [name for name in names if re.search(r"\.venv|__pycache__|\.pyc$", name)] == []


def test_wheel_is_whole(dist: Path) -> None:
    """The wheel has every file of the package, those that are no code too, and no other."""
    (path,) = dist.glob("*.whl")
    assert path.name == f"scopefs-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if name.startswith("scopefs/")}
    assert names == list_package()
    assert "scopefs/py.typed" in names


def test_wheel_runs_elsewhere(dist: Path, tmp_path: Path) -> None:
    """Installed into an empty environment, it stores and reads, and every command has its help."""
    python = make_venv(tmp_path / "venv")
    install(python, *dist.glob("*.whl"))
    command = python.with_name("scopefs")
    assert run(command, "--version") == f"scopefs, version {__version__}\n"
    described = run(
        python, "-c", "from importlib.metadata import version as v; print(v('scopefs'))"
    )
    assert described.strip() == __version__
    text = run(command, "--help")
    for name in re.findall(r"^  ([a-z]+)  ", text.partition("Commands:")[2], re.MULTILINE):
        assert "Usage: scopefs" in run(command, name, "--help")
    vault = tmp_path / "vault"
    run(command, "put", "--vault", vault, "my.notes", "-", "--name", "a.txt", input="text")
    assert run(command, "get", "--vault", vault, "my.notes") == "text"
    assert "all is well" in run(command, "verify", "--vault", vault)
    assert run(command, "completion", "bash").startswith("_scopefs_completion()")
    assert run(python, "-c", "import scopefs; print(scopefs.__file__)").startswith(str(tmp_path))


def test_wheel_installs_with_pipx(dist: Path, tmp_path: Path) -> None:
    """An environment of its own, all three programs on the PATH; and it goes again, whole."""
    python = make_venv(tmp_path / "venv")
    try:
        install(python, "pipx")
    except AssertionError as error:
        pytest.skip(f"pipx cannot be had here: {str(error).strip().splitlines()[-1]}")
    bin_, home = tmp_path / "bin", tmp_path / "home"
    environment = {
        f"PIPX_{name}": str(path)
        for name, path in {"HOME": home, "BIN_DIR": bin_, "MAN_DIR": tmp_path / "man"}.items()
    }

    def pipx(*arguments: str | Path) -> str:
        return run("env", *map("=".join, environment.items()), python, "-m", "pipx", *arguments)

    (wheel,) = dist.glob("*.whl")
    pipx("install", "--python", sys.executable,
         "--pip-args", f"-c {ROOT / '.ci' / 'requirements.txt'}", wheel)  # fmt: skip
    names = {"scopefs", "mount.scopefs", "mount.fuse.scopefs"}
    assert {path.name for path in bin_.iterdir()} == names
    assert run(bin_ / "scopefs", "--version") == f"scopefs, version {__version__}\n"
    vault = tmp_path / "vault"
    run(bin_ / "scopefs", "put", "--vault", vault, "my.notes", "-", input="text")
    pipx("uninstall", "scopefs")
    assert list(bin_.iterdir()) == []
    assert not (home / "venvs" / "scopefs").exists()
    assert (vault / "vault.json").exists()


def test_version_stands_in_one_place() -> None:
    """Nobody but scopefs/__init__.py says which version this is."""
    found = subprocess.run(
        ["git", "grep", "-lF", f'"{__version__}"', "--", "scopefs", "pyproject.toml", "scripts"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == ["scopefs/__init__.py"]
