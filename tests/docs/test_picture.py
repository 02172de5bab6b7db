"""docs/session.svg, the picture of the README: what it shows is what the commands print today."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d[:-]\d\d[:-]\d\d(\.\d{6})?Z(u\d{6})?")


def load_script() -> ModuleType:
    """scripts/picture.py, which draws it."""
    spec = importlib.util.spec_from_file_location("picture", ROOT / "scripts" / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    return " ".join(_TIME.sub("TIME", line).split())


def test_picture_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, times aside; long lines are cut off in the picture. `scripts/picture` redraws."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in ("SCOPEFS_CONFIG", "XDG_CONFIG_HOME", "SCOPEFS_MOUNTPOINT"):
        monkeypatch.delenv(name, raising=False)
    printed = [f"$ {line}" if typed else line for typed, line in load_script().run_session()]
    picture = ElementTree.fromstring((ROOT / "docs" / "session.svg").read_text(encoding="utf-8"))
    drawn = ["".join(each.itertext()) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert len(drawn) == len(printed)
    for shown, line in zip(drawn, printed, strict=True):
        if shown.endswith("…"):
            assert plain(line).startswith(plain(shown[:-1]))
        else:
            assert plain(line) == plain(shown)
