"""trainer=ddp: a run in several processes, which are started, watched and ended together.

The one that was asked only watches. Rank 0 keeps the run's folder as any run does, the others write nothing.
"""

import contextlib
import math
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.folder import Taken, failed
from cnnlab.memorizing import memorizes
from cnnlab.optimizer import is_full_batch
from cnnlab.parallel import distributed
from cnnlab.parallel.machine import gpus
from cnnlab.parallel.process import Process
from cnnlab.quiet import quiet_libraries
from cnnlab.result import Result
from cnnlab.signals import Interrupted
from cnnlab.terminal import warn_on_terminal

ON_CPU = 2  # processes, where nobody says how many
OUTPUTS = (1, 2)  # stdout and stderr, which rank 0 alone has
TICK_S = 0.5
GRACE_S = 20.0  # for the others to end by themselves, once one has failed

Train = Callable[[Config], Result]

REFUSALS = {"refused": RequestError, "elsewhere": Taken}


def visible_devices(config: Config) -> list[str | None]:
    """The GPU of each process as CUDA_VISIBLE_DEVICES names it; None: the CPU.

    Raises: RequestError where more GPUs are asked for than there are.
    """
    trainer = config.tree["trainer"]
    asked, found = trainer["devices"], [] if trainer["accelerator"] == "cpu" else gpus()
    if not found:
        return [None] * (ON_CPU if asked == "auto" else asked)
    if asked != "auto" and asked > len(found):
        raise RequestError(
            f"{config.says('trainer', 'devices')}: must be at most {len(found)}, the GPUs here"
        )
    return list(found[: None if asked == "auto" else asked])


def processes(config: Config) -> int:
    """How many processes a run is to have."""
    return len(visible_devices(config)) if config.is_distributed else 1


def check(config: Config, task: Any) -> None:
    """Refuse what the processes of a run cannot share.

    Raises: RequestError.
    """
    if distributed.size() == 1:
        return
    trainer = config.says("trainer")
    if memorizes(task):
        raise RequestError(f"{trainer}: {config.says('model')} takes no steps that processes could share")
    if is_full_batch(task.optimizer([nn.Parameter(torch.zeros(1))])):
        raise RequestError(f"{trainer}: {config.says('optimizer')} is for one process")
    for layer in task.convs.values():
        if hasattr(layer, "running_norm"):
            raise RequestError(f"{trainer}: {config.says('conv', 'radius')} is a measure of whole batches")
    if config.tree["trainer"]["precision"] == "16-mixed":  # each process would scale and skip by its own
        raise RequestError(f"{config.says('trainer', 'precision')}: must be bf16-mixed or float32")
    if config.tree["trainer"].get("max_time") is not None:
        raise RequestError(f"{config.says('trainer', 'max_time')}: the processes' clocks differ; epochs=N")


def train_apart(config: Config, train: Train) -> Result:
    """Train a run in a process per device; it returns and raises what `train` does."""
    seen = visible_devices(config)
    ranks: list[Process] = []
    with tempfile.TemporaryDirectory() as folder, _forwarding_signals(ranks) as received:
        try:
            for rank, gpu in enumerate(seen):
                environment = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
                terminal = [Connection(os.dup(fd), readable=False) for fd in OUTPUTS] if rank == 0 else []
                told = (config, train, rank, len(seen), str(Path(folder, "meeting")), terminal)
                ranks.append(Process(_take_part, *told, **environment))
            for signum in received:  # while they were started
                for process in ranks:
                    process.send(signum)
            ended = _watch(ranks)
        except BaseException:
            for process in ranks:
                process.kill()
            raise
    leader = ranks[0].answer
    if leader is not None and leader.status in ("done", "pruned"):
        return leader
    if received:
        raise Interrupted(received[0])
    if leader is not None and leader.status == "interrupted":
        raise Interrupted(signal.Signals[leader.error])
    for rank in ended:
        answer = ranks[rank].answer
        if answer is not None and answer.status in REFUSALS:
            raise REFUSALS[answer.status](answer.error)
    broken = (rank for rank in ended if ranks[rank].answer is None or ranks[rank].answer.status == "failed")
    first = next(broken)  # the others then failed for its sake
    answer = ranks[first].answer
    if answer is None:
        return failed(config, f"rank {first} of {len(seen)}: {ranks[first].end}", None)
    if leader is not None and leader.error.startswith(answer.error):
        return leader  # all failed alike, and it knows more
    return failed(config, f"rank {first} of {len(seen)}: {answer.error}", answer.traceback)


def _take_part(
    config: Config, train: Train, rank: int, size: int, meeting: str, terminal: Sequence[Connection]
) -> Result:
    """What a rank does in its process: train, and answer with a result, whatever happens."""
    quiet_libraries()
    if terminal:
        for output, fd in zip(terminal, OUTPUTS, strict=True):
            os.dup2(output.fileno(), fd)
        warn_on_terminal()
    try:
        with distributed.joined(rank, size, meeting):
            return train(config)
    except Interrupted as interrupted:
        name = signal.Signals(interrupted.exit_code - 128).name
        return Result.of(config, status="interrupted", error=name)
    except Taken as error:
        return Result.of(config, status="elsewhere", error=str(error))
    except RequestError as error:
        return Result.of(config, status="refused", error=str(error))
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        trace = traceback.format_exc()
        return Result.of(config, status="failed", error=f"{type(error).__name__}: {error}", traceback=trace)


def _watch(ranks: Sequence[Process]) -> list[int]:
    """The ranks in the order in which they ended; once one has failed, the others must end soon."""
    running, ended = dict(enumerate(ranks)), list[int]()
    deadline = math.inf
    while running:
        wait([source for process in running.values() for source in process.sources], TICK_S)
        for rank, process in [*running.items()]:
            if time.monotonic() > deadline:
                process.kill()
            elif not process.ended():
                continue
            ended.append(rank)
            del running[rank]
            if process.answer is None or process.answer.status not in ("done", "pruned", "interrupted"):
                deadline = min(deadline, time.monotonic() + GRACE_S)
    return ended


@contextlib.contextmanager
def _forwarding_signals(ranks: Sequence[Process]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM go to all ranks, which do not hear the terminal's."""
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for process in ranks:
            process.send(signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
