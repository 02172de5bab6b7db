"""scopefs verify"""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scopefs.cli.options import json_option, print_json, printable, progress_option, vault_option

if TYPE_CHECKING:
    from scopefs.store.problems import Problem
    from scopefs.store.verify import Verification

DAMAGED_EXIT = 6


@click.command("verify")
@vault_option
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="MB",
              help="Read at most so many megabytes in a second.  [default: no limit]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where an interrupted verification was.")
@progress_option
@json_option
def command(
    vault_path: Path, rate: float | None, resume: bool, progress: bool | None, as_json: bool
) -> int:
    """Read everything in the vault, and check that it is whole.

    All payloads are compared with their hashes, and all that the vault knows with what is there.
    The vault may be mounted and in use. What is found is listed, each with what to do about it;
    nothing is changed. Exit code 6 if anything was found.

    \b
    Example:
        scopefs verify
        scopefs verify --rate 20
        scopefs verify --resume
    """
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        run = vault.verification(rate_bytes=rate * 1e6 if rate else None, resume=resume)
        if not as_json:
            # Those of the part that was done before.
            for problem in run.progress.problems:
                _print_problem(problem)
        try:
            _run(run, sys.stderr.isatty() if progress is None else progress, quiet=as_json)
        except KeyboardInterrupt:
            run.save()
            click.echo("\ninterrupted: `scopefs verify --resume` goes on from here", err=True)
            raise
    found = run.progress
    if as_json:
        print_json({
            "startedAt": found.started_at, "resumed": run.is_resumed, "checked": found.counts,
            "bytesRead": found.bytes_read, "problems": [vars_of(item) for item in found.problems],
            "moreProblems": found.more,
        })  # fmt: skip
    else:
        _print_summary(run)
    return DAMAGED_EXIT if found.problems else 0


def _run(run: "Verification", show: bool, *, quiet: bool) -> None:
    with ExitStack() as stack:
        bar: Any = None
        if show:
            bar = stack.enter_context(
                click.progressbar(length=max(1, run.estimate()), file=sys.stderr, width=30,
                                  item_show_func=lambda item: item)
            )  # fmt: skip
            done = sum(run.progress.counts.values())
            bar.update(min(done, bar.length - 1))

        shown_at = 0.0
        waiting = 0

        def tell(name: str, count: int) -> None:
            nonlocal shown_at, waiting
            waiting += count
            if bar is not None and time.monotonic() - shown_at > 0.1:
                bar.update(max(0, min(waiting, bar.length - bar.pos - 1)), name)
                shown_at, waiting = time.monotonic(), 0

        for problem in run.run(tell):
            if not quiet:
                if bar is not None:
                    click.echo(err=True)
                _print_problem(problem)
        if bar is not None:
            bar.update(max(0, bar.length - bar.pos), "")


def _print_problem(problem: "Problem") -> None:
    click.echo(f"{problem.code}  {printable(problem.where)}: {problem.what}\n    {problem.do}")


def _print_summary(run: "Verification") -> None:
    found = run.progress
    total = len(found.problems) + found.more
    counted = ", ".join(
        f"{found.counts.get(check, 0)} {word}"
        for check, word in (
            ("rows of versions", "version(s)"), ("blobs", "blob(s)"), ("names", "name(s)"),
            ("events", "event(s)"),
        )
    )  # fmt: skip
    result = f"{total} problem(s)" if total else "all is well"
    click.echo(f"checked {counted}, {found.bytes_read} bytes: {result}")


def vars_of(problem: "Problem") -> dict[str, str]:
    """A problem as JSON members."""
    return {"code": problem.code, "where": problem.where, "what": problem.what, "do": problem.do}
