"""The Ray launcher, on a cluster of this machine: the runs, the numbers and the failures of the local one."""

import os
import re
import signal
from pathlib import Path

import pytest

from cnnlab.__main__ import command
from cnnlab.compose import Composer
from cnnlab.parallel.machine import cores
from cnnlab.result import Result
from cnnlab.sweep import ray as launcher_module
from cnnlab.sweep.launcher import run_jobs
from cnnlab.sweep.local import LocalLauncher
from cnnlab.sweep.ray import RayLauncher
from tests.gate import GATED, held
from tests.processes import alive, command_line, descendants, started, wait_for
from tests.test_sweep_local import QUICK, sweep, timeless

needs_ray = pytest.mark.skipif(
    not launcher_module.find_spec("ray"), reason="the extra `ray` is not installed"
)


def outcome(results: list[Result]):
    return [(result.status, result.error, timeless(result)) for result in results]


@needs_ray
def test_jobs_of_a_cluster_have_the_bits_of_local_ones_and_it_leaves_nothing(tmp_path, capfd):
    lines = ["optimizer=sgd", "optimizer.lr=0.1,0.05,1e30"]
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    cluster, folders, states = set(), set(), set()

    def look(jobs):
        states.update(job.state for job in jobs)
        for pid in descendants(os.getpid()):
            if found := re.search(r"--temp-dir=(/tmp/ray-\S+)", command_line(pid)):
                cluster.add(pid)
                folders.add(found[1])

    results = run_jobs(sweep(tmp_path / "ray", *lines), RayLauncher(), on_change=look)
    assert [result.status for result in results] == ["done", "done", "failed"]
    assert "the loss is " in results[2].error and "NonFiniteLoss" in results[2].traceback
    assert outcome(results) == outcome(run_jobs(sweep(tmp_path / "local", *lines), LocalLauncher(jobs=2)))
    assert {result.threads for result in results} == {1} and all(result.shared for result in results)
    assert {"pending", "done", "failed"} <= states  # "running" only where a look falls into the short runs

    assert len(folders) == 1 and not Path(*folders).exists()
    assert cluster and not any(map(alive, cluster))
    assert handlers == [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    assert capfd.readouterr() == ("", "")


def worker_of(job: int) -> int:
    """The process of Ray's that sees a job through."""
    workers = [pid for pid in descendants(os.getpid()) if command_line(pid).startswith("ray::")]
    return next(pid for pid in workers if job in descendants(pid))


@needs_ray
@pytest.mark.slow
def test_a_job_or_a_worker_that_is_killed_fails_alone_and_goes_on_when_asked_again(tmp_path, capfd):
    configs = [*sweep(tmp_path, *GATED, "seed=0,1"), *sweep(tmp_path, "seed=2")]
    killed = set()

    def strike(jobs):
        for job, victim in zip(jobs, ("worker", "job"), strict=False):
            if victim not in killed and (pid := held(job.folder)):
                os.kill(worker_of(pid) if victim == "worker" else pid, signal.SIGKILL)
                killed.add(victim)

    worker, job, whole = run_jobs(configs, RayLauncher(), on_change=strike)
    assert killed == {"worker", "job"}
    assert [worker.status, job.status, whole.status] == ["failed", "failed", "done"]
    assert job.error == "killed by SIGKILL (out of memory?)"
    assert worker.error == f"ray.exceptions.WorkerCrashedError: {worker.traceback}"
    assert worker == Result.read(configs[0].folder)

    assert capfd.readouterr() == ("", "")

    again = run_jobs(configs, RayLauncher())
    undisturbed = run_jobs(sweep(tmp_path / "whole", "seed=range(3)"), LocalLauncher(jobs=2))
    assert outcome(again) == outcome(undisturbed)


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(cores() < 2, reason="two jobs are to run at once")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_checkpoints_what_runs_and_ends_the_cluster(signum, tmp_path):
    ours = [*GATED, "seed=0,1"]
    line = ["-m", *QUICK, *ours, "hydra/launcher=ray", f"output_dir={tmp_path}"]
    with started(*line, start_new_session=True) as launcher:
        assert wait_for(lambda: len([*tmp_path.rglob("held")]) == 2)
        family = descendants(launcher.pid)
        os.killpg(launcher.pid, signum) if signum == signal.SIGINT else launcher.send_signal(signum)
        said = launcher.communicate(timeout=600)[0]
    assert launcher.returncode == 128 + signum, said
    assert "asked for again (without resume=false) it goes on" in said
    assert wait_for(lambda: not any(map(alive, family)))
    configs = sweep(tmp_path, *ours)
    assert [Result.read(config.folder).status for config in configs] == ["interrupted"] * 2
    again = run_jobs(configs, RayLauncher())
    assert outcome(again) == outcome(run_jobs(sweep(tmp_path / "whole", "seed=0,1"), LocalLauncher(jobs=2)))


@needs_ray
@pytest.mark.slow
def test_a_search_asks_for_as_many_jobs_as_the_cluster_takes():
    import ray

    config = Composer().one(["trainer=cpu"])
    with RayLauncher(cpus_per_job=1).cluster([config]):
        cpus = int(ray.cluster_resources()["CPU"])
    assert RayLauncher(cpus_per_job=1).at_a_time(config) == cpus
    assert RayLauncher(cpus_per_job=2).at_a_time(config) == max(1, cpus // 2)


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("cpus_per_job=0", "must be a whole number >= 1, got 0"),
        ("gpus_per_job=-1", "must be a number >= 0, got -1"),
        ("gpus_per_job=many", "must be a number >= 0, got 'many'"),
        ("gpus_per_job=1.5", "must be whole where it is above 1, got 1.5"),
        ("address=null", "must be a word, got None"),
    ],
)
@needs_ray
def test_knobs_out_of_range_are_one_line(knob, said, capsys):
    assert command(["-m", "seed=0,1", "hydra/launcher=ray", f"hydra.launcher.{knob}"]) == 2
    out, err = capsys.readouterr()
    value = knob.replace("null", "None")
    assert err == f"hydra/launcher=ray hydra.launcher.{value}: {said}\n" and not out


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launcher_module, "find_spec", lambda name: None)
    assert command(["-m", "seed=0,1", "hydra/launcher=ray", f"output_dir={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert err == "hydra/launcher=ray: needs ray, which pip install 'cnnlab[ray]' brings\n" and not out
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("line", ["trainer.devices=2", "trainer=ddp", "trainer.num_nodes=2"])
@pytest.mark.parametrize("launcher", ["local", "ray", "submitit_slurm"])
def test_training_over_several_devices_is_refused_in_one_line(launcher, line, tmp_path, capsys):
    words = [f"hydra/launcher={launcher}", *["hydra.launcher.cluster=local"] * (launcher == "submitit_slurm")]
    assert command(["-m", "seed=0,1", line, *words, f"output_dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("trainer=") and line in err
    assert not [*tmp_path.iterdir()]
