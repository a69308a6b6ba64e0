"""An image of a command's output in a terminal.

    python docs/terminal_screenshot.py OUT.svg COMMAND...

The command runs with plain (not animated) output; its lines are drawn as they came, long runs
shortened in the middle.
"""

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

SHOWN, WIDTH = 26, 112  # lines, columns


def main() -> None:
    out, command = Path(sys.argv[1]), sys.argv[2:]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    if len(lines) > SHOWN:
        head = SHOWN - 9
        lines = [*lines[:head], "  ...", *lines[-8:]]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ " + shlex.join(command), style="bold green"))
    for line in lines:
        console.print(Text(line))
    image = console.export_svg(title="convnet")
    # rich's stylesheet names fonts on a server; an image in a repository needs no network.
    image = re.sub(r"@font-face \{.*?\}\s*", "", image, flags=re.DOTALL)
    out.write_text(image)


if __name__ == "__main__":
    main()
