"""What opening a vault costs, by its size and by what a killed process left under way.

`scripts/bench --recovery`: vaults of 10,000 and of 1,000,000 settled versions; in each, nothing or
200 closed writes are left by a process that ends in `kill -9`, half of them in the row, half in
files. Measured are `Vault.open` in a new process, and the whole command `scopefs mount`, which
returns when the mount answers. Ways and vaults take turns, round after round; medians.

Opening has to take as long in the large vault as in the small one. The rows of a vault are copies
of real ones, made by SQL; their files are not there, and opening does not look for them.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw

from scopefs import Vault

SCOPES = 100
_MADE_US = 1_577_836_800_000_000
"""2020-01-01: every version is older than what a measurement makes."""

_FILL = """
CREATE TEMP TABLE i AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
  SELECT i, i % {scopes} AS s FROM n;
CREATE TEMP TABLE model AS
  SELECT d.*, n.parent, n.node AS named, s.mode, e.detail, e.scope AS event_scope,
    CAST(SUBSTR(d.scope, 8) AS INTEGER) AS s
  FROM data_files d JOIN names n ON n.node = d.node JOIN shown s ON s.version = d.id
  JOIN events e ON e.seq = s.from_seq;
CREATE TEMP TABLE last AS SELECT MAX(d.id) AS id, (SELECT MAX(seq) FROM events) AS seq,
  (SELECT MAX(at_us) FROM events) AS us,
  (SELECT value FROM meta WHERE key = 'next_node') AS node FROM data_files d;
INSERT INTO data_files(id, path, scope, collected_at, created_at, size_bytes, collected_us, kind,
    node, name, mtime_ns, payload_size, payload_sha256, media_type, writer_uid, writer)
  SELECT last.id + i, 'data/' || REPLACE(scope, '.', '/') || '/'
      || STRFTIME('%Y-%m-%dT%H-%M-%SZ', us / 1000000 + i, 'unixepoch') || '.json', scope,
    STRFTIME('%Y-%m-%dT%H:%M:%SZ', us / 1000000 + i, 'unixepoch'), created_at, size_bytes,
    us - us % 1000000 + i * 1000000, kind, last.node + i, CAST('n' || i AS BLOB), mtime_ns,
    payload_size, payload_sha256, media_type, writer_uid, writer
  FROM i JOIN model USING (s), last ORDER BY i;
INSERT INTO nodes(id, kind, scope)
  SELECT last.node + i, k.kind, k.scope FROM i JOIN model USING (s) JOIN nodes k ON k.id = named,
    last ORDER BY i;
INSERT INTO names(parent, name, node, from_seq, slot)
  SELECT parent, CAST('n' || i AS BLOB), last.node + i, last.seq + i, last.node + i
  FROM i JOIN model USING (s), last ORDER BY i;
INSERT INTO shown(node, from_seq, version, mode, mtime_ns)
  SELECT last.node + i, last.seq + i, last.id + i, mode, mtime_ns FROM i JOIN model USING (s), last
  ORDER BY i;
INSERT INTO events(seq, at_us, scope, detail, hash)
  SELECT last.seq + i, us + i * 1000000, event_scope, detail, RANDOMBLOB(32)
  FROM i JOIN model USING (s), last ORDER BY i;
UPDATE scopes SET versions = (SELECT COUNT(*) FROM data_files d WHERE d.scope = scopes.scope),
  last_us = (SELECT MAX(collected_us) FROM data_files d WHERE d.scope = scopes.scope);
UPDATE meta SET value = (SELECT node + {n} + 1 FROM last) WHERE key = 'next_node';
UPDATE meta SET value = (SELECT MAX(seq) FROM events) WHERE key = 'settled_seq';
"""

# Stages closed writes as the mount does at close, and dies of kill -9.
_STAGE_AND_DIE = """
import os, signal, sys
from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.store import changes, publish, rows
from scopefs.store.publish import StagedState, Write

vault, count = Vault.open(sys.argv[1]), int(sys.argv[2])
scope = vault.apply(changes.ensure_scope, parse_scope("bench.s0"))
node = vault.apply(rows.allocate_nodes, count)
staging = []
for number in range(count):
    draft = vault.new_draft()
    draft.append(b"x" * (100_000 if number % 2 else 1000))
    name = b"%d-%d" % (os.getpid(), number)
    write = Write(
        vault.owner_name, scope, node + number, scope, name, 0o600, None, draft.seal(name))
    staging.append(lambda transaction, write=write: publish.apply_stage(
        transaction, write, StagedState.CLOSED))
vault.apply_all(staging, durable=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

_OPEN = """
import sys, time
from scopefs import Vault
began = time.perf_counter()
vault = Vault.open(sys.argv[1])
print(time.perf_counter() - began, vault.recovered.published)
vault.close()
"""


def make_vault(root: Path, versions: int) -> None:
    """A vault of so many settled versions, in `SCOPES` scopes."""
    with Vault.open(root, create=True, clock_us=lambda: _MADE_US) as vault:
        for number in range(SCOPES):
            vault.put(f"bench.s{number}", b'{"number":%d}' % number, name="model")
    db = apsw.Connection(str(root / "index.db"))
    try:
        # Whole, or thrown away: nothing has to be safe in between.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = MEMORY"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("BEGIN")
        for _ in db.execute(_FILL.format(n=versions - SCOPES, scopes=SCOPES)):
            pass
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        db.close()


def leave_unfinished(root: Path, count: int) -> None:
    """Have a process stage writes and die."""
    done = subprocess.run([sys.executable, "-c", _STAGE_AND_DIE, root, str(count)], check=False)
    if done.returncode != -signal.SIGKILL:
        raise SystemExit("scopefs: the writes could not be staged")


def time_open(root: Path, unfinished: int) -> float:
    """Milliseconds from the call of `Vault.open` to its return."""
    told = subprocess.run(
        [sys.executable, "-c", _OPEN, root], check=True, capture_output=True, text=True
    ).stdout.split()
    if int(told[1]) != unfinished:
        raise SystemExit(f"scopefs: {told[1]} writes were recovered, not {unfinished}")
    return float(told[0]) * 1e3


def time_mount(root: Path, point: Path) -> float:
    """Milliseconds from the start of `scopefs mount` to its end: then the mount answers."""
    program = [sys.executable, "-m", "scopefs"]
    began = time.perf_counter()
    subprocess.run(
        [*program, "mount", "--vault", root, point], check=True, stdout=subprocess.DEVNULL
    )
    took = (time.perf_counter() - began) * 1e3
    subprocess.run(
        [*program, "umount", "--vault", root, point], check=True, stdout=subprocess.DEVNULL
    )
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", type=int, default=10_000, help="versions")
    parser.add_argument("--large", type=int, default=1_000_000, help="versions")
    parser.add_argument("--unfinished", type=int, default=200, help="writes")
    parser.add_argument("--no-mount", action="store_true", help="Vault.open alone")
    options = parser.parse_args()
    ways = ("Vault.open",) if options.no_mount else ("Vault.open", "scopefs mount")
    sizes = (options.small, options.large)
    found: dict[tuple[str, int, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="scopefs-bench-") as here:
        roots = {size: Path(here) / f"of-{size}" for size in sizes}
        for size, root in roots.items():
            make_vault(root, size)
        # The first round only warms the caches.
        for turn in range(options.rounds + 1):
            for way in ways:
                for unfinished in (0, options.unfinished):
                    for size, root in roots.items():
                        if unfinished:
                            leave_unfinished(root, unfinished)
                        took = (
                            time_open(root, unfinished)
                            if way == "Vault.open"
                            else time_mount(root, Path(here) / "mnt")
                        )
                        if turn:
                            found.setdefault((way, unfinished, size), []).append(took)
    print(f"{'ms, median':14} {'unfinished':>10} {sizes[0]:>11,} {sizes[1]:>11,}  ratio")
    for way in ways:
        for unfinished in (0, options.unfinished):
            small, large = (statistics.median(found[way, unfinished, size]) for size in sizes)
            print(f"{way:14} {unfinished:10} {small:11.1f} {large:11.1f}  {large / small:.2f}")


if __name__ == "__main__":
    main()
