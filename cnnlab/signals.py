"""SIGINT and SIGTERM only set a flag; the training stops at its next consistent point, after a checkpoint."""

import signal
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal asked the run to stop, and it stopped where it can be resumed."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Signals:
    """Context in which a first SIGINT or SIGTERM is only remembered; a second one strikes at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self.before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
        self.install()
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def install(self) -> None:
        """Also called once Lightning has put its own handler before ours: that one ends a run with code 0."""
        for signum in self.before:
            signal.signal(signum, self.remember)

    def remember(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(signum)
        self.received = signum

    def check(self) -> None:
        if self.received is not None:
            raise Interrupted(self.received)
