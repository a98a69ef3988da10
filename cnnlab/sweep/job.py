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

    def __post_init__(self) -> None:
        self.folder = self.config.folder

    def begin(self) -> None:
        self.state, self.began = "running", time.monotonic()

    def end(self, result: Result) -> None:
        self.state, self.result = result.status, result


class Launcher(Protocol):
    """Runs jobs, wherever that may be: the words of `hydra/launcher`.

    A call ends each job with a result, whatever befalls it, and calls `changed` when there may be something
    to show. `threads` (a run) is asked for before job 0: the number changes bits and enters the manifest.

    Raises:
        Interrupted: a signal came; the running jobs are checkpointed, the others left pending.
    """

    def threads(self, configs: Sequence[Config]) -> int: ...

    def __call__(self, jobs: Sequence[Job], changed: Callable[[], None]) -> None: ...
