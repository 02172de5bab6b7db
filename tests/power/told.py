"""What the writers told before a cut, and what a vault must show for it afterwards.

Times are of the monotonic clock, which all processes share.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tree = dict[str, str]
"""What a directory shows: path to hash of the content, or `FOLDER`."""

FOLDER = "folder"
EMPTY = hashlib.sha256(b"").hexdigest()
_SYNCS = ("close", "fsync", "sync")
_SCRATCH = (".part", "~")


@dataclass
class Deed:
    """One thing that a writer did."""

    do: str
    began: float
    members: dict[str, Any]
    ended: float = math.inf
    """When it was answered 0."""

    @property
    def acknowledged(self) -> bool:
        return self.ended < math.inf

    @property
    def path(self) -> str:
        return str(self.members["path"])

    @property
    def sha(self) -> str:
        return str(self.members["sha"])

    @property
    def is_scratch(self) -> bool:
        return self.path.endswith(_SCRATCH)


@dataclass
class Story:
    """All that one writer told, after its directory showed `start`."""

    writer: str
    start: Tree
    deeds: list[Deed] = field(default_factory=list)
    error: tuple[float, str] | None = None

    def list_states(self) -> Iterator[tuple[float, float, Tree]]:
        """All that the directory may have shown, each with when it did at earliest and latest."""
        tree = dict(self.start)
        changes = [
            (deed, change)
            for deed in self.deeds
            for change in plan_changes(deed)
        ]  # fmt: skip
        since = -math.inf
        for deed, change in changes:
            yield since, deed.ended, dict(tree)
            change(tree)
            since = deed.began
        yield since, math.inf, tree


def plan_changes(deed: Deed) -> list[Any]:
    """What a deed does to a tree, step by step: a cut may come between the steps."""
    members = deed.members
    if deed.do in ("close", "truncate"):
        return [lambda tree: tree.__setitem__(deed.path, deed.sha)]
    if deed.do == "mkdir":
        return [lambda tree: tree.__setitem__(deed.path, FOLDER)]
    if deed.do in ("unlink", "rmdir"):
        return [lambda tree: tree.__delitem__(deed.path)]
    if deed.do != "rename":
        return []
    new = members["to"]
    if members.get("synced"):
        # It was never closed, so that its name is made for the rename.
        return [
            lambda tree: tree.__setitem__(deed.path, EMPTY),
            lambda tree: (tree.__delitem__(deed.path), tree.__setitem__(new, deed.sha)),
        ]
    return [lambda tree: _rename(tree, deed.path, new)]


def _rename(tree: Tree, old: str, new: str) -> None:
    for path in [path for path in tree if path == old or path.startswith(f"{old}/")]:
        tree[new + path[len(old) :]] = tree.pop(path)


def load_story(writer: str, log: Path, start: Tree) -> Story:
    """Read what a writer has told; a line that a kill has torn was never told."""
    story = Story(writer, start)
    deeds: dict[int, Deed] = {}
    for line in log.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        told = json.loads(line)
        if "error" in told:
            story.error = told["at"], told["error"]
        elif "done" in told:
            deeds[told["n"]].ended = told["at"]
        else:
            deeds[told["n"]] = Deed(told.pop("do"), told.pop("at"), told)
    story.deeds = list(deeds.values())
    return story


class Expected:
    """What a vault owes to its writers, over all cuts that it has seen."""

    def __init__(self) -> None:
        self.versions: set[str] = set()
        """Contents that were closed, and acknowledged."""
        self.allowed: set[str] = set()
        """Contents that somebody was about to finish: no version has another one."""
        self.unlinked: set[str] = set()
        """Contents whose version its program may have taken back."""
        self.drafts: list[list[Deed]] = []
        """Contents that were acknowledged by fsync before the last cut, each with those that may
        stand for it."""
        self.closes = self.syncs = 0

    def add(self, story: Story) -> None:
        """Take in what a writer told before the last cut."""
        open_drafts: dict[str, list[Deed]] = {}
        closed_again: dict[str, str] = {}
        tree = dict(story.start)
        for deed in story.deeds:
            if deed.do in _SYNCS and deed.acknowledged:
                self.closes += deed.do == "close"
                self.syncs += deed.do != "close"
            if deed.do == "fsync":
                self._note_sync(open_drafts, deed)
            elif deed.do == "close":
                self._note_close(open_drafts, closed_again, deed)
            elif deed.do == "truncate":
                self.allowed.add(deed.sha)
            elif deed.do == "rename" and deed.members.get("synced"):
                self.allowed.add(deed.sha)
                open_drafts[deed.members["to"]] = open_drafts.pop(deed.path)
            elif deed.do == "unlink":
                self.unlinked.add(tree[deed.path])
            for change in plan_changes(deed):
                change(tree)
        self.drafts += open_drafts.values()

    def _note_sync(self, open_drafts: dict[str, list[Deed]], deed: Deed) -> None:
        if deed.acknowledged:
            open_drafts[deed.path] = [deed]
        elif deed.path in open_drafts:
            open_drafts[deed.path].append(deed)

    def _note_close(
        self, open_drafts: dict[str, list[Deed]], closed_again: dict[str, str], deed: Deed
    ) -> None:
        self.allowed.add(deed.sha)
        # One session makes one version: what came of its first close gives way to its last.
        first = closed_again.pop(deed.path, None)
        if deed.acknowledged:
            open_drafts.pop(deed.path, None)
            self.versions.discard(first or "")
            if not deed.is_scratch:
                self.versions.add(deed.sha)
                if deed.members.get("again"):
                    closed_again[deed.path] = deed.sha
        else:
            self.versions.discard(first or "")
            if deed.path in open_drafts:
                open_drafts[deed.path].append(deed)
            elif first:
                self.drafts.append([Deed("close", 0, {"sha": first, "size": 0}), deed])

    def check(self, live: set[str], trashed: set[str], kept: list[bytes]) -> list[str]:
        """What is wrong with the versions of a vault, and with what it has kept besides.

        `live`, `trashed`: hashes of versions. `kept`: interrupted writes and scratch files.
        """
        found = live | trashed
        problems = [
            f"lost: a content that was closed and acknowledged, {sha}"
            for sha in sorted(self.versions - found)
        ]
        problems += [
            f"taken back, and never unlinked: {sha}"
            for sha in sorted((trashed - live) & self.versions - self.unlinked)
        ]
        problems += [
            f"a version that nobody finished: {sha}" for sha in sorted(found - self.allowed)
        ]
        for candidates in self.drafts:
            if not any(deed.sha in found or _is_kept(deed, kept) for deed in candidates):
                problems.append(f"lost: a content that was fsynced, {candidates[0]}")
        # From now on they may be finished, replaced and removed like everything else.
        self.drafts.clear()
        return problems


def _is_kept(deed: Deed, kept: list[bytes]) -> bool:
    size = deed.members["size"]
    return any(
        hashlib.sha256(content[:size]).hexdigest() == deed.sha
        for content in kept
        if len(content) >= size > 0
    )


def check_trees(stories: list[Story], found: dict[str, Tree]) -> list[str]:
    """What is wrong with what the directories show: it must be what they all showed at one moment.

    That moment lies after everything that an acknowledged close or fsync, of anybody, came after.
    """
    synced = max(
        (deed.began for story in stories for deed in story.deeds
         if deed.do in _SYNCS and deed.acknowledged),
        default=-math.inf,
    )  # fmt: skip
    problems = []
    moments: list[list[tuple[float, float]]] = []
    for story in stories:
        tree = found[story.writer]
        all_spans = [(since, until) for since, until, state in story.list_states() if state == tree]
        spans = [(max(since, synced), until) for since, until in all_spans if until >= synced]
        if not spans:
            what = "older than the last fsync" if all_spans else "never so"
            problems.append(f"{story.writer} is {what}: {_nearest(story, tree, synced)}")
        moments.append(spans)
    if not problems:
        starts = sorted({since for spans in moments for since, _ in spans})
        if not any(
            all(any(since <= start <= until for since, until in spans) for spans in moments)
            for start in starts
        ):
            problems.append(f"the directories show different moments: {moments}")
    return problems


def _nearest(story: Story, tree: Tree, synced: float) -> str:
    """How the tree differs from the state that is most like it, of those that it may have."""
    states = [state for _, until, state in story.list_states() if until >= synced]
    best = min(states, key=lambda state: len(state.items() ^ tree.items()))
    wanted = dict(sorted(best.items() - tree.items()))
    return f"expected {wanted}, found {dict(sorted(tree.items() - best.items()))}"
