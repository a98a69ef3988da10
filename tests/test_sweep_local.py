"""The local launcher: whatever ends a job ends one job, and none is lost, doubled or left behind."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import pytest

from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.folder import RunFolder
from cnnlab.result import Result
from cnnlab.signals import Interrupted
from cnnlab.sweep.job import Job
from cnnlab.sweep.launcher import run_jobs
from cnnlab.sweep.local import LocalLauncher
from tests.gate import GATED, held
from tests.processes import alive, descendants, started, wait_for

QUICK = ["logger=none", "epochs=2", "batch_size=128", "model.filters=[8]", "threads=1"]
TRAINED_TO_THE_END = "`Trainer.fit` stopped: `max_epochs=2` reached."  # in log.txt, once a training


def sweep(tmp_path: Path, *lines: str) -> list[Config]:
    return Composer().sweep([*QUICK, f"output_dir={tmp_path}", *lines])


def quickly(config: Config) -> Result:
    """A run that takes no time."""
    with RunFolder(config):
        result = Result.of(config, status="done", device=os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
        result.write(config.folder)
    return result


def deadly(config: Config) -> Result:
    """Ends, seed by seed, in every way there is."""
    with RunFolder(config):
        Result.of(config).write(config.folder)
        print(f"seed {config.tree['seed']} was here", flush=True)
        match config.tree["seed"]:
            case 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand more")
            case 2:
                sys.exit(7)
            case 3:
                os.kill(os.getpid(), signal.SIGKILL)
            case 4:
                os._exit(0)
            case 5:
                ctypes.string_at(0)
            case 6:
                os.kill(os.getpid(), signal.SIGTERM)
    return quickly(config)


def test_whatever_ends_a_job_ends_one_job_and_is_recorded(tmp_path):
    configs = sweep(tmp_path, "seed=range(8)")
    jobs = [Job(config) for config in configs]
    LocalLauncher(jobs=2)(jobs, task=deadly)
    errors = [job.result and job.result.error for job in jobs]
    assert [job.state for job in jobs] == ["done", *["failed"] * 6, "done"]
    assert errors == [
        None,
        "RuntimeError: DefaultCPUAllocator: can't allocate memory\nand more",
        "SystemExit: 7",
        "killed by SIGKILL (out of memory?)",
        "the process ended with exit code 0 and no result",
        "killed by SIGSEGV",
        "killed by SIGTERM",
        None,
    ]
    written = [Result.read(job.folder) for job in jobs]
    assert written == [job.result for job in jobs]
    traces = [result.traceback or "" for result in written if result]
    assert "in deadly" in traces[1] and "Segmentation fault" in traces[5] and "in deadly" in traces[5]
    assert "seed 3 was here" in traces[3], "the last words of a killed job"
    assert "seed 7 was here" in (jobs[7].folder / "log.txt").read_text()


def test_a_refused_job_leaves_nothing_and_the_others_run(tmp_path):
    refused, done = run_jobs(sweep(tmp_path, "activation=maxout", "activation.k=3,2"), LocalLauncher(jobs=1))
    assert refused.status == "refused" and "activation.k=3: " in str(refused.error)
    assert done.status == "done" and not done.shared, "it was alone on the machine"
    assert len(list(tmp_path.rglob("log.txt"))) == 1


def test_jobs_beside_each_other_say_so_and_have_the_bits_of_one_alone(tmp_path):
    together = run_jobs(sweep(tmp_path / "a", "seed=0,1"), LocalLauncher(jobs=2))
    alone = run_jobs(sweep(tmp_path / "b", "seed=0,1"), LocalLauncher(jobs=1))
    assert [result.shared for result in (*together, *alone)] == [True, True, False, False]
    for one, other in zip(together, alone, strict=True):
        assert one.metrics["train/loss"] == other.metrics["train/loss"]
        assert one.metrics["test/accuracy"] == other.metrics["test/accuracy"]


def test_each_job_sees_one_gpu(tmp_path):
    launcher = LocalLauncher(jobs="auto", jobs_per_gpu=1)
    launcher.gpus = ["0", "GPU-1"]
    jobs = [Job(config) for config in sweep(tmp_path, "seed=range(4)")]
    launcher(jobs, task=quickly)
    assert {job.result.device for job in jobs if job.result} == {"0", "GPU-1"}


@pytest.mark.parametrize(("jobs", "per_gpu"), [(0, 1), (-1, 1), (1.5, 1), ("many", 1), (True, 1), (1, 0)])
def test_numbers_of_jobs_are_whole(jobs, per_gpu):
    with pytest.raises(ValueError, match="must be"):
        LocalLauncher(jobs=jobs, jobs_per_gpu=per_gpu)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_checkpoints_what_runs_and_asked_again_nothing_is_lost(signum, tmp_path):
    undisturbed = run_jobs(sweep(tmp_path / "whole", "seed=range(3)"), LocalLauncher(jobs=2))
    stopped, signalled = tmp_path / "stopped", []
    configs = [*sweep(stopped, *GATED, "seed=0,1"), *sweep(stopped, "seed=2")]

    def strike(jobs):
        if not signalled and all(held(job.folder) for job in jobs[:2]):
            signalled.append(os.kill(os.getpid(), signum))

    with pytest.raises(Interrupted) as interrupted:
        run_jobs(configs, LocalLauncher(jobs=2), on_change=strike)
    assert interrupted.value.exit_code == 128 + signum
    left = [Result.read(config.folder) for config in configs]
    assert [result and result.status for result in left[:2]] == ["interrupted"] * 2
    assert left[2] is None, "what had not begun is pending"
    resumed = run_jobs(configs, LocalLauncher(jobs=2))
    assert [result.status for result in resumed] == ["done"] * 3
    for one, other in zip(resumed, undisturbed, strict=True):
        assert timeless(one) == timeless(other)


def timeless(result: Result) -> dict[str, float]:
    return {key: value for key, value in result.metrics.items() if not key.startswith("time/")}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_jobs_die_with_their_launcher(tmp_path):
    line = ["-m", *QUICK, *GATED, f"output_dir={tmp_path}", "seed=0,1", "hydra.launcher.jobs=2"]
    with started(*line) as launcher:
        assert wait_for(lambda: len(list(tmp_path.rglob("held"))) == 2)
        family = descendants(launcher.pid)
        assert len([pid for pid in family if os.getsid(pid) == pid]) == 2, "the two jobs"
        launcher.kill()
        assert wait_for(lambda: not any(map(alive, family)))


def test_two_launchers_at_once_train_no_run_twice(tmp_path):
    line = ["-m", *QUICK, f"output_dir={tmp_path}", "seed=range(4)", "hydra.launcher.jobs=1"]
    with started(*line) as one, started(*line) as other:
        said = [process.communicate(timeout=120)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    logs = [path.read_text() for path in tmp_path.rglob("log.txt")]
    assert [log.count(TRAINED_TO_THE_END) for log in logs] == [1] * 4
    tables = [text[text.index("mean ±") :] for text in said]
    assert tables[0] == tables[1], "each has all the results"
