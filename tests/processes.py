"""Other processes: the command line as one, who has started whom, who is alive, waiting for what they do."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def started(*lines: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command line, as a process of its own, which a test that fails does not wait for."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-m", "cnnlab", *lines], **pipes, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, and those have."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def command_line(pid: int) -> str:
    """The words a process was started with; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 600) -> bool:
    """Whether it becomes true; the time is for what hangs, not for a machine that is busy."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())
