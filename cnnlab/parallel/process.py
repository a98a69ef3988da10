"""A function in a process of its own, forked in 0.04 s from a server that has torch and Lightning imported.

It dies with the process that started it, is untouched by the terminal's Ctrl-C, and writes to a file of its
own in place of the terminal.
"""

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cnnlab.parallel.warm"])


class Process:
    """Runs `function(*arguments)`; `answer` is what it returned, None where the process died instead."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, **environment: str) -> None:
        self.answer: Any = None
        self.said = ""  # on stdout and stderr, once it has ended
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        # Connections are the one kind of open file that multiprocessing hands on.
        output = Connection(os.dup(self.output.fileno()), readable=False)
        self.pipe, theirs = SERVER.Pipe(duplex=False)
        told = (theirs, output, {**os.environ, **environment}, os.getcwd(), function, arguments)
        self.process = SERVER.Process(target=_run, args=told)
        self.process.start()
        theirs.close()
        output.close()
        self.sources: list[Any] = [self.pipe, self.process.sentinel]  # of news, for multiprocessing's wait

    def ended(self) -> bool:
        """Whether the process has ended; reads its answer."""
        exited = not self.process.is_alive()  # asked first: what it sent before its end is then in the pipe
        if self.pipe in self.sources and self.pipe.poll():
            try:
                self.answer = self.pipe.recv()
            except (EOFError, OSError):  # died before it answered, or while it did
                self.sources.remove(self.pipe)
        if exited:
            self._close()
        return exited

    @property
    def end(self) -> str:
        """How it ended, where it did not answer."""
        if self.exit_code >= 0:
            return f"the process ended with exit code {self.exit_code} and no result"
        signum = -self.exit_code
        known = {member.value: member.name for member in signal.Signals}
        name = known.get(signum, f"signal {signum}")
        return f"killed by {name}" + " (out of memory?)" * (signum == signal.SIGKILL)

    def send(self, signum: int) -> None:
        if not self.output.closed and self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signum)

    def kill(self) -> None:
        if self.output.closed:  # it has ended
            return
        self.process.kill()
        self.process.join()
        self._close()

    def _close(self) -> None:
        self.output.seek(0)
        self.said = self.output.read().decode(errors="replace")
        self.exit_code = self.process.exitcode or 0
        self.output.close()
        self.pipe.close()
        self.process.close()


def _run(
    pipe: Connection,
    output: Connection,
    environment: Mapping[str, str],
    folder: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.setsid()
    os.environ.clear()  # the server has the environment of its start
    os.environ.update(environment)
    os.environ.pop("WANDB_SERVICE", None)  # of whoever asked: what dies in it would keep the id of its run
    os.chdir(folder)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    faulthandler.enable()
    threading.Thread(target=die_with_parent, daemon=True).start()
    pipe.send(function(*arguments))
    pipe.close()


def die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
