"""`hydra/launcher=ray`: the machines of a Ray cluster."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from cnnlab.allowed import RequestError, finite, text, whole
from cnnlab.config import Config
from cnnlab.folder import is_taken
from cnnlab.parallel.machine import cores
from cnnlab.report.table import say
from cnnlab.result import Result
from cnnlab.signals import Interrupted, Signals
from cnnlab.sweep import worker
from cnnlab.sweep.job import Job
from cnnlab.sweep.local import LocalLauncher
from cnnlab.sweep.loop import TICK_S, see_through

STORE_BYTES = 80_000_000  # about the least that Ray takes; a configuration and a result are all it carries
KNOCK_S = 10.0
# Nothing is to be sent home or said on the terminal: what befalls a job is told by its result.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}


class RayLauncher:
    """Runs each job as a task of a Ray cluster, in a process of its own on the node that Ray chooses.

    `address` is local (a cluster of this machine alone, which ends with the sweep), auto (the cluster this
    machine is part of) or HOST:PORT. A job has `cpus_per_job` threads and `gpus_per_job` GPUs, a part of one
    if below 1; auto: one where the cluster has any. The nodes must have cnnlab, and the folders of this
    machine under the same paths, with file locks that all of them see.
    """

    def __init__(
        self, *, address: str = "local", cpus_per_job: int = 1, gpus_per_job: float | Literal["auto"] = "auto"
    ) -> None:
        if find_spec("ray") is None:
            raise RequestError("hydra/launcher=ray: needs ray, which pip install 'cnnlab[ray]' brings")
        self.address = text("address", address)
        self.cpus_per_job = whole("cpus_per_job", cpus_per_job, at_least=1)
        self.gpus_per_job = gpus_per_job
        if (
            gpus_per_job != "auto"
            and finite("gpus_per_job", gpus_per_job, at_least=0) > 1
            and gpus_per_job % 1
        ):
            raise ValueError(f"gpus_per_job must be whole where it is above 1, got {gpus_per_job}")

    def threads(self, configs: Sequence[Config]) -> int:
        return self.cpus_per_job

    def at_a_time(self, config: Config) -> int:
        with Signals(), self.cluster([config]) as ray:
            has, takes = ray.cluster_resources(), self.takes(config, ray)
        return max(1, min(int(has.get(kind, 0) // n) for kind, n in takes.items() if n))

    def __call__(self, jobs: Sequence[Job], changed: Callable[[], None] = lambda: None) -> None:
        with Signals() as signals, self.cluster([job.config for job in jobs]) as ray:
            signals.install()  # Ray has put a handler of its own
            signals.check()
            place = Cluster(ray, {job.config.id: self.takes(job.config, ray) for job in jobs})
            place.look_for_room(self.address)
            see_through(jobs, place, changed)

    def takes(self, config: Config, ray: Any) -> dict[str, float]:
        """What a job takes of the cluster's resources."""
        if config.tree["trainer"]["accelerator"] == "cpu":
            gpus = 0.0
        elif isinstance(self.gpus_per_job, str):  # auto
            gpus = min(1, ray.cluster_resources().get("GPU", 0))
        else:
            gpus = self.gpus_per_job
        return {"CPU": config.tree["threads"] or self.cpus_per_job, "GPU": gpus}

    def knock(self) -> None:
        """Ray itself would try for minutes where nobody listens."""
        host, _, port = self.address.rpartition(":")
        if port.isdigit() and "/" not in host:
            socket.create_connection((host, int(port)), KNOCK_S).close()

    @contextlib.contextmanager
    def cluster(self, configs: Sequence[Config]) -> Iterator[Any]:
        """The module ray, connected."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        own: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            if self.address == "local":
                # Jobs are to be ended by the system if memory is short, for that ends the one that takes it.
                os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
                os.environ.setdefault("RAY_AUTH_MODE", "token")
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())
                # Sockets lie in it, whose paths are short.
                folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
                threads = [config.tree["threads"] or self.cpus_per_job for config in configs]
                own = {
                    "num_cpus": max(cores(), *threads),
                    "object_store_memory": STORE_BYTES,
                    "include_dashboard": False,
                    "_node_ip_address": "127.0.0.1",
                    "_temp_dir": stack.enter_context(folder),
                }
            import ray

            logging.getLogger("ray").setLevel(logging.CRITICAL)
            stack.callback(ray.shutdown, wait_for_processes=True)
            try:
                self.knock()
                ray.init(self.address, log_to_driver=False, configure_logging=False, **own)
            except (OSError, RuntimeError, ValueError) as error:
                said = " ".join(str(error).split())
                raise RequestError(
                    f"hydra/launcher=ray hydra.launcher.address={self.address}: {said}"
                ) from error
            yield ray


class Cluster:
    """Tasks that Ray has queued or runs."""

    def __init__(self, ray: Any, takes: Mapping[str, dict[str, float]]) -> None:
        self.ray, self.takes = ray, takes  # what each job takes of its node, by the run's id
        # Ray's processes have the folder and the environment of their start, which may be another machine's.
        here = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        self.given = (os.getcwd(), here)

    def look_for_room(self, address: str) -> None:
        """Ray silently queues what no node has room for, until one comes that has.

        Raises:
            RequestError: none can come.
        """
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

        def fits(takes: Mapping[str, float]) -> bool:
            return any(all(node.get(kind, 0) >= n for kind, n in takes.items()) for node in nodes)

        if too_much := [takes for takes in self.takes.values() if not fits(takes)]:
            asked = " and ".join(f"{n} {kind}" for kind, n in too_much[0].items() if n)
            said = f"hydra/launcher=ray: no node of the cluster has {asked}, which a job takes"
            if address == "local":
                raise RequestError(said)
            say(f"{said}; waiting for one")

    def start(self, waiting: deque[Job]) -> Iterator["Task"]:
        while waiting:
            job = waiting.popleft()
            takes = self.takes[job.config.id]
            task = self.ray.remote(on_node).options(
                name=job.folder.name, num_cpus=takes["CPU"], num_gpus=takes["GPU"], max_retries=0
            )
            yield Task(job, self.ray, task.remote(job.config, *self.given))

    def wait(self, running: Sequence["Task"]) -> None:
        if running:
            self.ray.wait([task.reference for task in running], timeout=TICK_S)
        else:
            time.sleep(TICK_S)


class Task:
    """A job that Ray was handed."""

    def __init__(self, job: Job, ray: Any, reference: Any) -> None:
        self.job, self.ray, self.reference = job, ray, reference
        self.answer: Result | None = None
        self.said = self.end = ""

    def ended(self) -> bool:
        if not self.ray.wait([self.reference], timeout=0)[0]:
            return False
        try:
            self.answer = self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:  # no worker, no node any more, or no wish
            cancelled = isinstance(error, self.ray.exceptions.TaskCancelledError)
            if not cancelled and is_taken(self.job.folder):
                return False  # a job dies with its worker, but a moment later
            self.said = "" if cancelled else str(error)
            raised = getattr(error, "cause", None) or error  # on the node, as far as it came from there
            self.end = traceback.format_exception_only(raised)[-1].partition("\n")[0]
        return True

    def send(self, signum: int) -> None:
        self.ray.cancel(self.reference)  # to a task that runs it is a SIGINT

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)


def on_node(config: Config, folder: str, environment: Mapping[str, str]) -> Result | None:
    """What a worker of Ray does: see one job through; None: stopped before it began."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # else it is blocked in the job's process too
    os.chdir(folder)
    os.environ.update(environment)
    job, launcher = Job(config), LocalLauncher(jobs=1)
    launcher.gpus = []  # it sees those that Ray has chosen
    with contextlib.suppress(Interrupted):
        launcher([job], task=worker.train_beside_others)
    return job.result
