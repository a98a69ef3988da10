"""One run of a sweep as its launcher sees it: a frozen configuration and how far it has come."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cnnlab.config import Config
from cnnlab.result import Result


@dataclass
class Job:
    """What a launcher is handed, and changes as it goes.

    `state` is pending, running, elsewhere (another process trains this very run) or, once there is a result,
    that one's status.
    """

    config: Config
    state: str = "pending"
    result: Result | None = None
    began: float = 0.0  # time.monotonic() of this attempt
    folder: Path = field(init=False)  # looked up once, for that searches the disk
    opened: int = field(init=False)  # st_mtime_ns of its config.yaml, which each attempt writes anew

    def __post_init__(self) -> None:
        self.folder = self.config.folder
        self.opened = self._opened()

    def begin(self) -> None:
        self.state, self.began = "running", time.monotonic()

    def look(self) -> None:
        """Find out whether a pending job has begun, maybe on another machine."""
        if self.state == "pending" and self._opened() != self.opened:
            self.begin()

    def end(self, result: Result) -> None:
        self.state, self.result = result.status, result

    def _opened(self) -> int:
        try:
            return (self.folder / "config.yaml").stat().st_mtime_ns
        except OSError:
            return 0


class Launcher(Protocol):
    """Runs jobs, wherever that may be: the words of `hydra/launcher`.

    A call ends each job with a result, whatever befalls it, and calls `changed` when there may be something
    to show. `threads` (a run) is asked for before job 0: the number changes bits and enters the manifest.
    `at_a_time` is asked for by a search, which then calls with so many jobs like `config` again and again.

    Raises:
        Interrupted: a signal came; the running jobs are checkpointed, the others left pending.
    """

    def threads(self, configs: Sequence[Config]) -> int: ...

    def at_a_time(self, config: Config) -> int: ...

    def __call__(self, jobs: Sequence[Job], changed: Callable[[], None]) -> None: ...
