"""scopefs verify"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scopefs.cli.options import json_option, print_json, printable, vault_option
from scopefs.cli.progress import Bar, progress_option, wants_bar

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
            _run(run, wants_bar(progress, as_json=as_json), quiet=as_json)
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


def _run(run: "Verification", is_shown: bool, *, quiet: bool) -> None:
    """Run it with two bars, one behind the other: what is only compared, then what is read."""
    from scopefs.store.checks import READING

    to_compare, to_read = run.estimate() if is_shown else (0, 0)
    with ExitStack() as stack:
        bar = stack.enter_context(Bar("comparing", to_compare, is_shown=is_shown, unit="things"))
        read_before: int | None = None

        def tell(name: str, count: int) -> None:
            nonlocal bar, read_before
            if name not in READING:
                bar.advance(count)
                return
            if read_before is None:
                read_before = run.bytes_read
                stack.close()
                bar = stack.enter_context(Bar("reading", to_read, is_shown=is_shown))
            bar.reach(run.bytes_read - read_before)

        for problem in run.run(tell):
            if not quiet:
                bar.clear()
                _print_problem(problem)


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
