"""Stands in for the user: `typing KEYS PROGRAM...` runs a program in a terminal, and types.

`^X` in KEYS is Ctrl+X, so `^M` is Enter and `^[` is Escape. The keys are typed when the program
has taken over the terminal. Ends with the exit code of the program.
"""

import os
import pty
import re
import select
import sys
import termios
import time

PATIENCE_S = 20.0


def main(keys: str, *command: str) -> int:
    """Run the command, type the keys, read what it prints until it ends."""
    pid, terminal = pty.fork()
    if pid == 0:
        # Before the program begins: a change of size can cost it a key.
        termios.tcsetwinsize(0, (24, 80))
        os.execvp(command[0], command)
    pending = re.sub(rb"\^(.)", lambda match: bytes([match[1][0] & 0x1F]), os.fsencode(keys))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if select.select([terminal], [], [], 0.01)[0] and not os.read(terminal, 65_536):
                break
            if pending and is_taken_over(terminal):
                os.write(terminal, pending)
                pending = b""
        except OSError:
            break
    else:
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def is_taken_over(terminal: int) -> bool:
    """Whether each key goes to the program: at once, and `^S` too, which else stops the output."""
    input_flags, _, _, local_flags, *_ = termios.tcgetattr(terminal)
    return not (input_flags & termios.IXON or local_flags & termios.ICANON)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
