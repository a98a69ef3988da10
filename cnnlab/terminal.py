"""What is said on the terminal while something runs, beside its output."""

import logging
import shutil
import sys


def announce(text: str) -> None:
    """What is under way, on a terminal: a line that the next overwrites; no thread redraws it."""
    if sys.stderr.isatty():
        print(end=f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", file=sys.stderr, flush=True)


def warn_on_terminal() -> None:
    """cnnlab's own warnings go to the terminal."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("cnnlab").addHandler(terminal)
