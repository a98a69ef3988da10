"""The Slurm launcher, by submitit's local executor and on a Slurm that is a script: preempted, killed."""

import os
import signal
import sys

import pytest

from cnnlab.__main__ import command
from cnnlab.result import Result
from cnnlab.signals import Interrupted
from cnnlab.sweep import slurm as launcher_module
from cnnlab.sweep.launcher import run_jobs
from cnnlab.sweep.local import LocalLauncher
from cnnlab.sweep.slurm import SlurmLauncher
from tests.gate import GATED, held
from tests.processes import command_line, descendants, wait_for
from tests.test_sweep_local import sweep
from tests.test_sweep_ray import outcome

needs_submitit = pytest.mark.skipif(
    not launcher_module.find_spec("submitit"), reason="the extra `slurm` is not installed"
)

SEEDS = "seed=range(2)"

# Runs an array's tasks at once, each in a session of its own, as sbatch, srun, scancel, scontrol and sacct.
SLURM = r"""
import os, pathlib, re, signal, subprocess, sys
verb, *words = pathlib.Path(sys.argv[0]).name, *sys.argv[1:]
state = pathlib.Path(sys.argv[0]).parent
def mark(task, what): return state / f"{task}.{what}"
if verb == "sbatch":
    script = pathlib.Path(words[0]).read_text()
    if "--partition=nowhere" in script:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    job = str(1000 + len(list(state.glob("*.sh"))))
    (state / f"{job}.sh").write_text(script)
    last = re.search(r"--array=0-([0-9]+)", script)
    for index in range(int(last[1]) + 1) if last else [None]:
        task = job if index is None else f"{job}_{index}"
        told = {"JOB_ID": job, "JOB_NUM_NODES": 1, "NTASKS": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0}
        told |= {} if index is None else {"ARRAY_JOB_ID": job, "ARRAY_TASK_ID": index}
        env = os.environ | {f"SLURM_{key}": str(value) for key, value in told.items()} | {"TASK": task}
        mark(task, "RUNNING").touch()
        subprocess.Popen([state / "slurmd", task, state / f"{job}.sh"], env=env,
                         start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("Submitted batch job", job)
elif verb == "slurmd":
    task, script = words
    code = subprocess.call(["bash", script])
    while mark(task, "requeue").exists():
        mark(task, "requeue").unlink()
        code = subprocess.call(["bash", script])
    end = "CANCELLED by 0" if mark(task, "cancelled").exists() else "FAILED" if code else "COMPLETED"
    mark(task, "RUNNING").rename(mark(task, end))
elif verb == "srun":
    task = os.environ["TASK"]
    mark(task, "pid").write_text(str(os.getpid()))
    for fd, word in ((1, "--output"), (2, "--error")):
        path = words[words.index(word) + 1].replace("%A_%a", task).replace("%j", task).replace("%t", "0")
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)
    os.execvp(words[5], words[5:])
elif verb == "scancel":
    mark(words[0], "cancelled").touch()
    if mark(words[0], "pid").exists():
        os.kill(int(mark(words[0], "pid").read_text()), signal.SIGTERM)
elif verb == "scontrol":
    mark(words[1], "requeue").touch()
elif verb == "sacct":
    print("JobID|State|NodeList")
    for path in state.iterdir():
        if path.suffix[1:2].isupper():
            print(path.stem, path.suffix[1:], "here", sep="|")
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with a Slurm of this machine, which is on the PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for verb in ("sbatch", "slurmd", "srun", "scancel", "scontrol", "sacct"):
        (folder / verb).write_text(f"#!{sys.executable}{SLURM}")
        (folder / verb).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(launcher_module, "ASK_S", 1.0)
    return folder


@needs_submitit
def test_a_job_is_queued_again_when_preempted_and_has_the_bits_of_an_undisturbed_one(tmp_path, capfd):
    lines = ["optimizer=sgd", "optimizer.lr=0.1,1e30"]
    gated, preempted, states = sweep(tmp_path / "a", *lines, *GATED), [], set()

    def strike(jobs):
        states.update(job.state for job in jobs)
        if not preempted and jobs[0].state == "running" and (pid := held(jobs[0].folder)):
            preempted.append(os.kill(pid, signal.SIGUSR2))

    results = run_jobs(gated, SlurmLauncher(cluster="local"), on_change=strike)
    assert [result.status for result in results] == ["done", "failed"]
    assert "the loss is " in results[1].error and "NonFiniteLoss" in results[1].traceback
    said = [path.read_text() for path in tmp_path.rglob("*_log.out")]
    assert sum("Requeued job" in text for text in said) == 1, said
    assert outcome(results) == outcome(run_jobs(sweep(tmp_path / "b", *lines), LocalLauncher(jobs=2)))
    assert states == {"pending", "running", "done", "failed"} and all(result.shared for result in results)
    assert capfd.readouterr() == ("", "")


@needs_submitit
@pytest.mark.slow
def test_an_array_loses_nothing_to_preemption_a_kill_and_scancel(slurm, tmp_path):
    configs = sweep(tmp_path / "a", *GATED, SEEDS)
    struck = []

    def preempt_one_and_kill_the_other(jobs):
        if not struck and all(held(job.folder) for job in jobs):
            struck.extend(map(os.kill, [held(job.folder) for job in jobs], [signal.SIGUSR2, signal.SIGKILL]))

    done, killed = run_jobs(configs, SlurmLauncher(), on_change=preempt_one_and_kill_the_other)
    assert [done.status, killed.status] == ["done", "failed"]
    assert killed.error == "the job ended (FAILED) and left no result"
    assert killed == Result.read(configs[1].folder)
    assert "#SBATCH --array=0-1%2\n" in (slurm / "1000.sh").read_text()

    def stop(jobs):
        if len(struck) == 2 and all(held(job.folder) for job in jobs):
            struck.append(os.kill(os.getpid(), signal.SIGINT))

    epochs = (configs[1].folder / "history.csv").read_text().count("\n")
    (configs[1].folder / "held").unlink()  # to be held there again
    more = sweep(tmp_path / "a", *GATED, "seed=range(3)")
    with pytest.raises(Interrupted) as interrupted:
        run_jobs(more, SlurmLauncher(array_parallelism=1), on_change=stop)
    assert interrupted.value.exit_code == 130
    assert "#SBATCH --array=0-1%1\n" in (slurm / "1001.sh").read_text()
    assert Result.read(configs[1].folder).status == "interrupted"
    assert (configs[1].folder / "history.csv").read_text().count("\n") >= epochs

    again = run_jobs(configs, SlurmLauncher())
    assert outcome(again) == outcome(run_jobs(sweep(tmp_path / "b", SEEDS), LocalLauncher(jobs=2)))


@needs_submitit
@pytest.mark.slow
def test_a_signal_stops_the_local_jobs_too(tmp_path):
    configs, struck = sweep(tmp_path / "a", *GATED, SEEDS), []

    def stop(jobs):
        if not struck and all(held(job.folder) for job in jobs):
            struck.append(os.kill(os.getpid(), signal.SIGTERM))

    def left() -> list[int]:
        return [pid for pid in descendants(os.getpid()) if "submitit" in command_line(pid)]

    with pytest.raises(Interrupted) as interrupted:
        run_jobs(configs, SlurmLauncher(cluster="local"), on_change=stop)
    assert interrupted.value.exit_code == 143
    assert {Result.read(config.folder).status for config in configs} == {"interrupted"}
    assert wait_for(lambda: not left())
    again = run_jobs(configs, SlurmLauncher(cluster="local"))
    assert outcome(again) == outcome(run_jobs(sweep(tmp_path / "b", SEEDS), LocalLauncher(jobs=2)))


@needs_submitit
@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("cluster=slurm", "must be local where there are no sbatch and srun, got 'slurm'"),
        ("cluster=lsf", "must be one of slurm, local; got 'lsf'"),
        ("timeout_min=0", "must be a whole number >= 1, got 0"),
        ("mem_gb=0", "must be a number > 0, got 0"),
        ("array_parallelism=0.5", "must be a whole number >= 1, got 0.5"),
    ],
)
def test_knobs_out_of_range_are_one_line(knob, said, capsys, monkeypatch):
    monkeypatch.setattr(launcher_module.shutil, "which", lambda name: None)
    here = [] if "cluster" in knob else ["hydra.launcher.cluster=local"]
    assert command(["-m", "seed=0,1", "hydra/launcher=submitit_slurm", *here, f"hydra.launcher.{knob}"]) == 2
    out, err = capsys.readouterr()
    assert err == f"hydra/launcher=submitit_slurm hydra.launcher.{knob}: {said}\n" and not out


@needs_submitit
def test_what_sbatch_refuses_is_one_line(slurm, tmp_path, capfd):
    line = ["-m", "seed=0,1", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=nowhere"]
    assert command([*line, f"output_dir={tmp_path / 'out'}"]) == 2
    said = "hydra/launcher=submitit_slurm: sbatch: error: invalid partition specified: nowhere\n"
    assert capfd.readouterr() == ("", said)


def test_without_submitit_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launcher_module, "find_spec", lambda name: None)
    assert command(["-m", "seed=0,1", "hydra/launcher=submitit_slurm", f"output_dir={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    said = "hydra/launcher=submitit_slurm: needs submitit, which pip install 'cnnlab[slurm]' brings\n"
    assert err == said and not out and not [*tmp_path.iterdir()]
