"""The command line: one file per command, loaded when it is called.

Listings go to standard output, messages to standard error. Exit codes: scopefs.cli.exits.
"""

import importlib
import keyword
import os
import sys
from typing import Any

import click
import click.shell_completion

from scopefs import __version__
from scopefs.cli.exits import to_exit_code
from scopefs.errors import ScopefsError

COMMANDS = {
    "mount": "Mount a vault as a directory.",
    "umount": "Unmount a vault.",
    "put": "Store files without a mount.",
    "get": "Print what was stored.",
    "ls": "List scopes, or the names in a scope.",
    "log": "List versions and events, newest first.",
    "rm": "Move versions to the trash.",
    "trash": "See, bring back or destroy what was removed.",
    "partial": "See, accept or drop writes that did not finish.",
    "status": "Show what the vault holds and does.",
    "export": "Write scopes as plain files, or as an archive.",
    "import": "Add what an export or another vault holds.",
    "serve": "Serve the HTTP door without a mount.",
    "token": "Say who may use the HTTP door.",
    "config": "See the options, and where they come from.",
    "settle": "Place all published versions in the hierarchy now.",
    "verify": "Check that everything in the vault is whole.",
    "doctor": "Look for what is wrong around the vault, and say what to do.",
    "service": "Let systemd mount a vault at login, or at boot.",
    "reindex": "Make a lost or damaged index again.",
    "completion": "Print what completes commands in bash, zsh or fish.",
}
"""Name and one-line help of every command; its code is in the module of that name."""


class _LazyGroup(click.Group):
    """Lists all commands; imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # A module cannot be called `import`.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"scopefs.cli.{name}")
        command: click.Command = module.command
        return command

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem[str]]:
        """Commands and options, without importing a command."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items() if name.startswith(incomplete)
        ]  # fmt: skip
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scopefs")
def group() -> None:
    """A personal data vault that you mount.

    Copy files with any tool into MOUNTPOINT/SOURCE/CATEGORY/; each finished save becomes a dated
    version that nothing can change.

    \b
    Example:
        scopefs mount
        mkdir -p ~/vault/instagram/profile
        cp profile.json ~/vault/instagram/profile/
        ls ~/vault/instagram/profile/.versions/
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the program. Ends the process with an exit code of docs/semantics.md, E1."""
    try:
        result: Any = group.main(arguments, prog_name="scopefs", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        # `scopefs log | head`: the reader has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except (ScopefsError, OSError) as error:
        click.echo(f"scopefs: {describe(error)}", err=True)
        sys.exit(to_exit_code(error))


def describe(error: BaseException) -> str:
    """One line about an error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
