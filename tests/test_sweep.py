"""Sweeps: what is done is not done again, what is asked for is written down first, and people can read it."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from cnnlab.__main__ import command
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.parallel import machine
from cnnlab.report import table
from cnnlab.result import Result
from cnnlab.sweep import board, forecast, manifest
from cnnlab.sweep import slots as slots_module
from cnnlab.sweep.board import Board
from cnnlab.sweep.forecast import epochs
from cnnlab.sweep.job import Job
from cnnlab.sweep.launcher import run_jobs

QUICK = ["logger=none", "epochs=1", "batch_size=128", "model.filters=[8]"]


class FakeLauncher:
    """Ends every job at once, some as failures, and remembers what it was given."""

    def __init__(self, *, fails: tuple[int, ...] = (), threads: int = 3) -> None:
        self.fails, self._threads = fails, threads
        self.ran: list[int] = []

    def threads(self, configs):
        return self._threads

    def __call__(self, jobs, changed):
        for job in jobs:
            listed = manifest.read(job.folder.parent)[job.config.id]
            assert listed["tree"] == job.config.tree, "written down before it runs"
            seed = job.config.tree["seed"]
            self.ran.append(seed)
            status, error = ("failed", f"bang {seed}\nmore") if seed in self.fails else ("done", None)
            metrics = {"val/accuracy": seed / 10}
            result = Result.of(job.config, status=status, error=error, metrics=metrics, epochs_done=1)
            job.folder.mkdir(exist_ok=True)
            result.write(job.folder)
            job.end(result)
            changed()


def sweep(tmp_path: Path, *lines: str) -> list[Config]:
    return Composer().sweep([*QUICK, f"output_dir={tmp_path}", *lines])


def test_asked_again_only_what_is_missing_runs(tmp_path):
    first = run_jobs(sweep(tmp_path, "seed=range(3)"), FakeLauncher(fails=(1,)))
    assert [result.status for result in first] == ["done", "failed", "done"]
    again = FakeLauncher()
    results = run_jobs(sweep(tmp_path, "seed=range(4)"), again)
    assert again.ran == [1, 3] and [result.seed for result in results] == [0, 1, 2, 3]
    idle = FakeLauncher()
    assert run_jobs(sweep(tmp_path, "seed=range(4)"), idle) == results and idle.ran == []


def test_failed_runs_are_left_alone_on_request(tmp_path):
    run_jobs(sweep(tmp_path, "seed=0,1"), FakeLauncher(fails=(1,)))
    idle = FakeLauncher()
    results = run_jobs(sweep(tmp_path, "seed=0,1"), idle, retry_failed=False)
    assert idle.ran == [] and [result.status for result in results] == ["done", "failed"]


def test_resume_false_runs_all_afresh(tmp_path):
    for _ in range(2):
        launcher = FakeLauncher()
        run_jobs(sweep(tmp_path, "seed=0,1", "resume=false"), launcher)
        assert launcher.ran == [0, 1]


def test_equal_configurations_run_once(tmp_path):
    configs = [config for _ in range(2) for config in sweep(tmp_path, "seed=0,1,0")]
    assert len(configs) == 4, "the sweep itself has each of them once"
    launcher = FakeLauncher()
    assert [result.seed for result in run_jobs(configs, launcher)] == [0, 1, 0, 1]
    assert launcher.ran == [0, 1]


def test_names_keep_equal_configurations_apart(tmp_path):
    launcher = FakeLauncher()
    run_jobs(sweep(tmp_path, "name=a,b"), launcher)
    assert launcher.ran == [0, 0]
    assert {len(manifest.read(tmp_path / name)) for name in "ab"} == {1}


def test_threads_are_fixed_when_a_run_is_first_asked_for(tmp_path):
    configs = sweep(tmp_path, "seed=range(3)")
    manifest.fix([Job(config) for config in configs[:2]], threads=3)
    jobs = [Job(config) for config in configs]
    manifest.fix(jobs, threads=1)
    assert [job.config.tree["threads"] for job in jobs] == [3, 3, 1]
    assert [job.config.id for job in jobs] == [config.id for config in configs]
    asked = [Job(config) for config in sweep(tmp_path, "seed=range(3)", "threads=2")]
    manifest.fix(asked, threads=1)
    assert {job.config.tree["threads"] for job in asked} == {2}
    kept = [
        Config(**{k: v for k, v in run.items() if k != "folder"})
        for run in manifest.read(tmp_path / "default").values()
    ]
    assert kept == [job.config for job in asked], "the manifest alone gives the configurations again"


def test_a_torn_manifest_is_replaced(tmp_path):
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "sweep.json").write_text('{"ab')
    run_jobs(sweep(tmp_path, "seed=0,1"), FakeLauncher())
    assert len(json.loads((tmp_path / "default" / "sweep.json").read_text())) == 2


def test_a_key_is_left_out_for_the_words_that_lack_it():
    composer = Composer()
    configs = composer.sweep(["conv=standard,decoupled_tanh,orthogonal", "conv.rho=1,2", "seed=0,1"])
    seen = [(c.choices["conv"], c.tree["conv"].get("rho"), c.tree["seed"]) for c in configs]
    assert seen == [
        *(("standard", None, seed) for seed in (0, 1)),
        *(("decoupled_tanh", rho, seed) for rho in (1, 2) for seed in (0, 1)),
        *(("orthogonal", None, seed) for seed in (0, 1)),
    ]
    assert composer.left_out == {"conv.rho": ["conv=orthogonal", "conv=standard"]}
    assert configs[0].overrides == ["conv=standard", "seed=0"], "its command line is a valid one"
    assert Composer().one(configs[0].overrides).id == configs[0].id


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["conv=standard,orthogonal", "conv.rho=1"], "conv=standard conv.rho=1: standard has no rho"),
        (["conv=standard,decoupled_tanh", "conv.rhoo=1"], "conv.rhoo=1: no such key"),
        (["conv=standard,decoupled_tanh", "trainer.max_epochs=1"], "epochs=N"),
        (["seed=0,1", "epoch=3"], "did you mean 'epochs'"),
    ],
)
def test_a_key_that_no_word_has_is_refused(lines, said):
    with pytest.raises(RequestError, match=said):
        Composer().sweep(lines)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m hydra.launcher.jobs=0", "hydra/launcher=local hydra.launcher.jobs=0: must be auto or a whole"),
        ("-m hydra.launcher.jobs=1,2", "hydra.launcher.jobs=1,2: a sweep has one launcher"),
        ("-m hydra.launcher.jobz=1", "Could not override 'hydra.launcher.jobz'"),
        ("-m hydra.job.chdir=true", "hydra.job.chdir=true: "),
        ("-m hydra/launcher=nope", "hydra/launcher has no 'nope'; there are local, "),
        ("-m hydra/launcher=locl", ", did you mean 'local'?"),
        ("-m hydra/launcher=basic", "hydra/launcher has no 'basic'; there are local, "),
        ("-m hydra/launcher=null", "hydra/launcher has no None; there are local, "),
        ("-m hydra.launcher._target_=os.system", "hydra/launcher=local: only cnnlab's own launchers"),
        ("-m hydra/sweeper=serch", "hydra/sweeper has no 'serch'; there are basic, search, did you mean 'se"),
        ("-m sweep.retry_failed=maybe", "sweep.retry_failed=maybe: must be true or false"),
        ("-m output_dir=/dev/null/x seed=0,1", "output_dir=/dev/null/x: "),
        ("hydra.launcher.jobs=2", "hydra.launcher.jobs=2: Hydra's own keys say how a sweep runs"),
    ],
)
def test_how_a_sweep_runs_is_judged_in_one_line(line, said, capsys):
    assert command(line.split()) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and not out


def test_places_are_gpus_or_else_cores(monkeypatch):
    monkeypatch.setattr(slots_module, "cores", lambda: 8)

    def places(count, jobs=None, gpus=(), jobs_per_gpu=1):
        return slots_module.slots(count, jobs=jobs, gpus=[*gpus], jobs_per_gpu=jobs_per_gpu)

    assert places(100) == [(1, None)] * 8
    assert places(3) == [(2, None)] * 3, "few jobs share the cores"
    assert places(1) == [(8, None)]
    assert places(100, jobs=2) == [(4, None)] * 2
    assert places(100, jobs=20) == [(1, None)] * 20
    assert places(100, gpus="01") == [(4, "0"), (4, "1")]
    assert places(100, gpus="01", jobs_per_gpu=3) == [(1, "0"), (1, "1")] * 3
    assert places(1, gpus="01") == [(8, "0")]
    assert places(100, jobs=3, gpus="01") == [(2, "0"), (2, "1"), (2, "0")]


def test_cores_are_bounded_by_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 64, 65}, raising=False)
    siblings = {f"cpu{i}/": f"{i % 64},{i % 64 + 64}" for i in (0, 1, 2, 3, 64, 65)}
    files = {"cpu.max": "max 100000"}

    def text(path):
        return next((content for name, content in (siblings | files).items() if name in path), "")

    monkeypatch.setattr(machine, "_text", text)
    assert machine.cores() == 4
    files["cpu.max"] = "250000 100000"
    assert machine.cores() == 2
    files["cpu.max"] = "50000 100000"
    assert machine.cores() == 1


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 x 24."""
    console = Console(force_terminal=True, width=80, height=24, record=True, highlight=False)
    monkeypatch.setattr(board, "console", console)
    monkeypatch.setattr(table, "console", console)
    return console


def lines_of(console: Console, shown: object) -> list[str]:
    with console.capture() as capture:
        console.print(shown, style="none")
    return [line.rstrip() for line in Console(width=80).render_str(capture.get()).plain.splitlines()]


def test_a_hundred_jobs_fit_a_terminal_running_and_failed_ones_first(tmp_path, screen):
    jobs = [Job(config) for config in sweep(tmp_path, "seed=range(100)")]
    for job in jobs[:50]:
        job.end(Result.of(job.config, status="done", metrics={"val/accuracy": 0.5}, epochs_done=1))
    jobs[40].end(Result.of(jobs[40].config, status="failed", error="bang"))
    for job in jobs[60:62]:
        job.begin()
    shown = Board()
    shown.labels = table.apart([job.config for job in jobs])
    shown.forecast.watch(jobs)
    with screen.capture() as capture:
        screen.print(shown.table(jobs))
    text = capture.get()
    assert len(text.splitlines()) <= 24
    assert all(f"seed={seed} " in text for seed in (40, 60, 61)) and "seed=99" not in text
    assert "2 running, 1 failed, 49 done, 48 pending" in text


@pytest.mark.parametrize(
    "status", ["running", "done", "failed", "interrupted", "pruned", "refused", "elsewhere"]
)
def test_every_state_of_a_job_has_its_row_and_is_counted(tmp_path, screen, status):
    jobs = [Job(config) for config in sweep(tmp_path, "seed=0,1")]
    shown = Board()
    shown([])  # labels follow
    jobs[0].end(Result.of(jobs[0].config, status=status))
    shown(jobs)
    told = shown.table(jobs)
    assert told.row_count == 2 and {f"1 {status}", "1 pending"} <= set(told.caption.split(", "))


def test_a_running_job_shows_epoch_best_accuracy_and_time_left(tmp_path, screen, monkeypatch):
    (config,) = sweep(tmp_path, "epochs=10")
    job = Job(config)
    job.folder.mkdir(parents=True)
    job.begin()
    shown = Board()
    shown([job])
    assert shown.running(0, job, epochs(job)) == ("0/10", "", "")
    history = "step,epoch,train/loss,val/accuracy\n"
    (job.folder / "history.csv").write_text(
        history + "5,1,2.0,0.25\n10,2,1.0,0.75\n15,3,1.0,0.5\n20,4,1,0.5\n"
    )
    monkeypatch.setattr(forecast.time, "monotonic", lambda: job.began + 8)
    assert shown.running(0, job, epochs(job)) == ("4/10", "0.7500", "0:12"), "2 s an epoch, 6 to go"
    assert shown.table([job]).caption == "1 running, about 0:12 left"


def test_off_a_terminal_each_finished_job_is_a_line(tmp_path, capsys):
    with Board() as shown:
        run_jobs(sweep(tmp_path, "seed=range(3)"), FakeLauncher(fails=(1,)), on_change=shown)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "[1/3] defaults: done val/accuracy 0",
        "[2/3] seed=1: failed bang 1",
        "[3/3] seed=2: done val/accuracy 0.2000",
    ]


def test_the_summary_names_every_failure(tmp_path, capsys):
    results = run_jobs(sweep(tmp_path, "seed=range(4)"), FakeLauncher(fails=(1, 3)))
    table.compare(results, 4)
    out = capsys.readouterr().out
    assert "2 of 4 runs are not done" in out
    assert "seed=1: failed, bang 1\n" in out and "seed=3: failed, bang 3\n" in out


def test_a_dry_run_tells_state_and_cost_and_leaves_nothing(tmp_path, capsys):
    line = ["-m", *QUICK, f"output_dir={tmp_path}", "activation=maxout", "activation.k=3,2", "seed=0,1"]
    assert command([*line, "--dry-run"]) == 2
    out = capsys.readouterr().out
    assert "activation=maxout activation.k=3: " in out and out.count("refused") == 2
    assert out.count("new ") >= 2 and "1,026" in out and " MB" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["-m"], ["-m", "--dry-run"]], ids=" ".join)
def test_a_sweep_over_devices_is_refused_dry_or_not(tmp_path, capsys, flags):
    assert command([*flags, *QUICK, f"output_dir={tmp_path}", "trainer=ddp", "seed=0,1"]) == 2
    out, err = capsys.readouterr()
    assert err == "trainer=ddp: trains on several devices, a sweep's job has one\n" and not out


def test_a_dry_run_tells_the_threads_that_were_asked_for(tmp_path, capsys, monkeypatch):
    run_jobs(sweep(tmp_path, "seed=0"), FakeLauncher())
    monkeypatch.setattr(slots_module, "cores", lambda: 8)
    for asked, told in (([], "threads=8"), (["threads=5"], "threads=5")):
        assert command(["--dry-run", *QUICK, f"output_dir={tmp_path}", *asked]) == 0
        assert told in capsys.readouterr().out


def test_a_dry_run_costs_nothing_where_a_variant_is_done(tmp_path, capsys, monkeypatch):
    run_jobs(sweep(tmp_path, "seed=0,1"), FakeLauncher())
    from cnnlab.sweep import plan

    monkeypatch.setattr(plan.LocalLauncher, "__call__", lambda *_: pytest.fail("nothing is to be measured"))
    assert command(["-m", "--dry-run", *QUICK, f"output_dir={tmp_path}", "seed=range(3)"]) == 0
    assert "2 done, 1 new" in capsys.readouterr().out
