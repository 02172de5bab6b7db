"""The main job, end to end: a file copied into the mount becomes a version."""

import json
import subprocess

import apsw

from tests.mounting import Mounted


def test_copied_file_becomes_a_version(mounted: Mounted, tmp_path) -> None:
    """cp makes the name, one version that `ls` shows at once, its envelope and its row."""
    source = tmp_path / "profile.json"
    source.write_bytes(b'{"name":"ada"}\n')
    scope = mounted.make_scope("instagram.profile")
    subprocess.run(["cp", source, scope], check=True)
    listed = subprocess.run(["ls", scope, scope / ".versions"], check=True, capture_output=True)
    stamp, latest = sorted(p.name for p in (scope / ".versions").iterdir())
    assert listed.stdout.decode().split() == [
        f"{scope}:", "profile.json", f"{scope}/.versions:", stamp, latest,
    ]  # fmt: skip
    envelope = json.loads((scope / ".versions" / "latest.json").read_bytes())
    assert envelope["version"] == "1.0"
    assert envelope["scope"] == "instagram.profile"
    assert envelope["data"] == {"name": "ada"}
    assert (scope / "profile.json").read_bytes() == source.read_bytes()
    mounted.stop()
    placed = mounted.vault / "data" / "instagram" / "profile" / stamp
    assert json.loads(placed.read_bytes()) == envelope
    db = apsw.Connection(str(mounted.vault / "index.db"))
    rows = db.execute("SELECT path, scope, collected_at, size_bytes FROM data_files").fetchall()
    db.close()
    assert rows == [
        (f"data/instagram/profile/{stamp}", "instagram.profile", envelope["collectedAt"],
         placed.stat().st_size)
    ]  # fmt: skip
