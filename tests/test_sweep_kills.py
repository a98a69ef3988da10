"""A sweep loses nothing: kill -9 to its jobs and to its launcher, asked again until it is done."""

import contextlib
import os
import random
import signal
import statistics
import time
from pathlib import Path

import pytest

from cnnlab.result import Result
from tests.processes import alive, descendants, started
from tests.test_sweep_local import timeless

SWEEP = [
    *("-m", "conv=standard,decoupled_tanh", "conv.rho=1,2", "seed=range(8)", "ortho_weight=0.1"),
    *("epochs=3", "batch_size=128", "model.filters=[8]", "model.dropout=0.2", "logger=none", "threads=1"),
    "trainer.log_every_n_steps=4",
]
JOBS = 24  # 8 of standard, which has no rho, and 16 of decoupled_tanh


def results(folder: Path) -> dict[str, Result]:
    found = [Result.read(path.parent) for path in folder.rglob("result.json")]
    return {result.id: result for result in found if result is not None}


def jobs_of(launcher: int) -> list[int]:
    """The processes of its jobs: each leads a session of its own."""
    return [pid for pid in descendants(launcher) if alive(pid) and os.getsid(pid) == pid]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_sweep_under_kills_ends_with_the_table_of_an_undisturbed_one(tmp_path):
    def ask(name: str):
        return started(*SWEEP, f"output_dir={tmp_path / name}", "hydra.launcher.jobs=2")

    with ask("whole") as process:
        table = process.communicate()[0].partition("mean ±")[2]
    assert process.returncode == 0

    whole = results(tmp_path / "whole")
    job_s = statistics.median(result.wall_s for result in whole.values())
    draw, killed, attempts = random.Random(0), 0, 0
    while attempts == 0 or process.returncode != 0:
        attempts += 1
        assert attempts <= 10
        with ask("killed") as process:
            while killed < 5 * attempts <= 10 and process.poll() is None:
                time.sleep(draw.uniform(0, job_s))
                with contextlib.suppress(IndexError, ProcessLookupError):  # none runs, or it has just ended
                    os.kill(draw.choice(jobs_of(process.pid)), signal.SIGKILL)
                    killed += 1
            if attempts == 1:
                process.kill()
            said = process.communicate()[0]
    print(f"{killed} jobs and the launcher killed, asked {attempts} times")
    assert killed == 10 and attempts >= 3

    disturbed = results(tmp_path / "killed")
    assert len(whole) == JOBS and whole.keys() == disturbed.keys()
    folders = [path.parent for path in (tmp_path / "killed").rglob("config.yaml")]
    assert len(folders) == JOBS, "nothing doubled"
    assert {key: timeless(result) for key, result in whole.items()} == {
        key: timeless(result) for key, result in disturbed.items()
    }

    def without_times(text: str) -> list[list[str]]:
        return [line.split()[:-1] for line in text.splitlines()]

    assert without_times(said.partition("mean ±")[2]) == without_times(table)
    histories = [
        {path.parent.name: path.read_text().count("\n") for path in (tmp_path / name).rglob("history.csv")}
        for name in ("whole", "killed")
    ]
    assert histories[0] == histories[1], "each row once"


@pytest.mark.slow
def test_a_hundred_one_step_jobs_cost_little_more_than_their_work(tmp_path):
    """Against the same runs in one process that has everything imported, and is warm."""
    from cnnlab.compose import Composer
    from cnnlab.sweep.launcher import run_jobs
    from cnnlab.sweep.local import LocalLauncher
    from cnnlab.train import train

    lines = [*SWEEP[5:], "trainer.max_steps=1", "epochs=1"]
    jobs = Composer().sweep([*lines, f"output_dir={tmp_path / 'a'}", "seed=range(100)"])
    run_jobs(jobs[:1], LocalLauncher(jobs=1))  # the server has started
    began = time.perf_counter()
    run_jobs(jobs[1:], LocalLauncher(jobs=1))
    each_s = (time.perf_counter() - began) / 99
    alone = Composer().sweep([*lines, f"output_dir={tmp_path / 'b'}", "seed=range(11)"])
    train(alone[0])
    began = time.perf_counter()
    for config in alone[1:]:
        train(config)
    work_s = (time.perf_counter() - began) / 10
    print(f"a one-step job costs {each_s:.2f} s, {work_s:.2f} s of it its own work")
    assert each_s - work_s <= 0.3
