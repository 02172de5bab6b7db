"""The checks of `scopefs verify`: one for each thing that must always be so.

====  =================================================================================
I1    The envelope of every version stands where its row says, with exactly the bytes that
      the row describes, and its payload has the size and the hash of the row.
I2    Every blob that a version has stands at `blobs/<ab>/<sha256>`, and has that hash.
I3    In data/ and trash/ stand envelopes of versions, each in its place, and nothing else.
I4    In blobs/ stand blobs that versions have, each in its place, and nothing else.
I5    Events are numbered 1, 2, 3 ..., their times grow, each has the hash of its line, of
      which the hash of the one before is a part; what a version's event says is in its row.
I6    In events/ stand the lines of the settled events, each in the file of its day.
I7    A version's row agrees with itself: path, scope, times, trash, size, hash, file.
I8    The counters of a scope are what counting finds; no version is later than its `last_us`;
      its node is that of a directory of its own.
I9    A node has a number below `next_node`, a scope that is there, and shows something.
I10   A name's row names a directory and a node; its times do not overlap those of another
      row of the same name; its slot is its own; what it came from is there.
I11   A live name stands in a directory that has a name itself, where a thing of its kind may
      be; a directory has one name.
I12   What a node shows fits its kind, and is a version of it; what a live name shows is there,
      and not in the trash.
I13   A staged write has its bytes, and what it names is there.
I14   A scratch file's bytes are there, and its file shows them.
I15   Pending moves lead from and to places where files of the vault stand.
I16   In staging/ are the directories of owners, with staging files, and what is in the making.
I17   In partial/ are the bytes of interrupted writes, and their stories.
I18   An entry of the trash is that of a removal, and has as many versions as that says.
I19   The vault has its description, its directories and its index, which SQLite finds whole,
      and nothing else.
I20   The digests of the chunks of a payload, where there are any, are those of its bytes.
====  =================================================================================

A staged version counts as in its place, and so does a file of which a pending move leads to its
place: settling is a part of how things are. Each check yields pages, so that it may be interrupted
between two, and goes on from the `cursor` of the last one. What changes while it runs is no
problem: rows of a page are read in one statement, and what a look at the files finds wrong is
looked at once more while nobody settles.
"""

from scopefs.store.checks.context import Checked, Cursor, Page
from scopefs.store.checks.directories import (
    check_events_directory,
    check_partial,
    check_root,
    check_staging,
)
from scopefs.store.checks.events import check_events
from scopefs.store.checks.files import (
    check_blobs,
    check_stray_blobs,
    check_stray_envelopes,
    check_versions,
)
from scopefs.store.checks.rows import (
    check_moves,
    check_names,
    check_nodes,
    check_scopes,
    check_scratch,
    check_shown,
    check_staged,
    check_trash,
    check_version_rows,
)

CHECKS = {
    "index": check_root,
    "rows of versions": check_version_rows,
    "scopes": check_scopes,
    "nodes": check_nodes,
    "names": check_names,
    "what is shown": check_shown,
    "trash": check_trash,
    "staged writes": check_staged,
    "scratch files": check_scratch,
    "moves": check_moves,
    "events": check_events,
    "event files": check_events_directory,
    "staging": check_staging,
    "partial": check_partial,
    "files in data and trash": check_stray_envelopes,
    "files in blobs": check_stray_blobs,
    "blobs": check_blobs,
    "envelopes": check_versions,
}
"""All checks by what they look at, in their order: what is quick comes first."""

READING = ("blobs", "envelopes")
"""Those at the end, which read all payloads: what they do is counted in bytes."""

__all__ = ["CHECKS", "READING", "Checked", "Cursor", "Page"]
