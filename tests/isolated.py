"""Functions run in processes of their own, forked from a server that has torch and Lightning imported."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cnnlab.train"])


class Ended(Exception):
    """The process ended without an answer; its exit code (-9: killed)."""

    def __init__(self, exitcode: int | None) -> None:
        super().__init__(f"exit code {exitcode}")
        self.exitcode = exitcode


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """What function returns in a fresh process; raises Ended if that dies, else RuntimeError."""
    ours, theirs = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_answer, args=(theirs, dict(os.environ), function, arguments))
    process.start()
    theirs.close()
    try:
        answer, error = ours.recv()
    except EOFError:
        process.join()
        raise Ended(process.exitcode) from None
    finally:
        ours.close()
    process.join()
    if error:
        raise RuntimeError(error)
    return answer


def _answer(
    pipe: Connection, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()  # the server has the environment of its start
    os.environ.update(environment)
    try:
        answer = function(*arguments), None
    except Exception:
        answer = None, traceback.format_exc()
    pipe.send(answer)
    pipe.close()
