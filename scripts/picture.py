"""Draws a terminal session: the commands are really run, in a vault that is mounted for them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

COMMANDS = (
    "cp ~/profile.json vault/instagram/profile/",
    """echo '{"username": "ada", "followers": 2}' > vault/instagram/profile/profile.json""",
    "ls vault/instagram/profile vault/instagram/profile/.versions",
    "tail vault/instagram/profile/.history/profile.json/*Z*.json",
    "rm vault/instagram/profile/profile.json && scopefs log instagram.profile",
    "echo 3 > vault/instagram/profile/.versions/latest.json",
)
COLUMNS = 100
FONT_PX, LINE_PX, MARGIN_PX = 13, 19, 16
CHARACTER_PX = FONT_PX * 0.602


def run_session() -> list[tuple[bool, str]]:
    """Lines of the session, and whether each is a command."""
    lines: list[tuple[bool, str]] = []
    with tempfile.TemporaryDirectory(prefix="scopefs-picture-") as directory:
        home = Path(directory)
        environment = {
            **os.environ, "HOME": directory, "LC_ALL": "C.UTF-8", "SCOPEFS_VAULT": f"{home}/data",
            "TZ": "UTC",
        }  # fmt: skip
        (home / "profile.json").write_text('{"username": "ada"}\n', encoding="ascii")

        def run(command: str) -> str:
            return subprocess.run(
                ["bash", "-c", command], cwd=home, env=environment, check=False, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            ).stdout  # fmt: skip

        run("scopefs mount vault && mkdir -p vault/instagram/profile")
        try:
            for command in COMMANDS:
                lines.append((True, command))
                found = run(command).replace("bash: line 1: ", "bash: ")
                lines += [(False, line) for line in found.splitlines()]
        finally:
            run("scopefs umount vault")
    return lines


def draw(lines: list[tuple[bool, str]]) -> str:
    """An SVG of the lines."""
    width = round(COLUMNS * CHARACTER_PX) + 2 * MARGIN_PX
    height = len(lines) * LINE_PX + 2 * MARGIN_PX
    rows = []
    for number, (is_command, line) in enumerate(lines):
        y = MARGIN_PX + LINE_PX * (number + 1) - 5
        text = escape(line[: COLUMNS - 2] + "…" if len(line) > COLUMNS else line)
        prompt = '<tspan fill="#7fb069">$ </tspan>' if is_command else ""
        color = "#f2f2f2" if is_command else "#b9c0c8"
        rows.append(f'<text x="{MARGIN_PX}" y="{y}" fill="{color}">{prompt}{text}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n'
        f"<title>A session with scopefs</title>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#1d2329"/>\n'
        f'<g font-family="ui-monospace, DejaVu Sans Mono, Menlo, monospace" font-size="{FONT_PX}"'
        ' xml:space="preserve">\n' + "\n".join(rows) + "\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(run_session()), encoding="utf-8")
