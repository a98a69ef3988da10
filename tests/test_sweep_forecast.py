"""The time left of a sweep: hand-computed, and told only where something is known."""

import time
from dataclasses import replace

import pytest

from cnnlab.compose import Composer
from cnnlab.result import Result
from cnnlab.sweep import forecast
from cnnlab.sweep.board import Board
from cnnlab.sweep.forecast import Forecast
from cnnlab.sweep.job import Job

START = 1000.0


@pytest.fixture
def clock(monkeypatch):
    """Sets the time, in seconds since the sweep began."""

    def at(seconds):
        monkeypatch.setattr(forecast.time, "monotonic", lambda: START + seconds)

    at(0)
    return at


class Sweep:
    """Jobs of 10 epochs that begin and end when they are told to."""

    def __init__(self, tmp_path, clock, *lines):
        configs = Composer().sweep(["logger=none", "epochs=10", f"output_dir={tmp_path}", *lines])
        self.jobs = [Job(config) for config in configs]
        self.clock, self.forecast = clock, Forecast()
        self.forecast.watch(self.jobs)

    def begin(self, *numbers, at):
        self.clock(at)
        for i in numbers:
            self.jobs[i].state, self.jobs[i].began = "running", START + at
        self.forecast.watch(self.jobs)

    def end(self, *numbers, at, status="done", epochs=10):
        self.clock(at)
        for i in numbers:
            self.jobs[i].end(Result.of(self.jobs[i].config, status=status, epochs_done=epochs))
        self.forecast.watch(self.jobs)

    def left(self, at, **trained):
        self.clock(at)
        return self.forecast.left_s(self.jobs, {int(i.strip("_")): n for i, n in trained.items()})


def test_nothing_is_told_before_something_is_known(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "seed=range(4)")
    assert sweep.left(at=0) is None
    sweep.begin(0, 1, at=0)
    assert sweep.left(at=30, _0=0, _1=0) is None
    sweep.end(0, at=40, status="failed", epochs=0)
    assert sweep.left(at=50, _1=0) is None, "a job that fails at once says nothing of the others"
    assert sweep.left(at=50, _1=1) is not None


def test_running_jobs_tell_by_their_epochs_and_places_are_filled_in_turn(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "seed=range(5)")
    sweep.begin(0, 1, at=0)
    # 5 s and 4 s an epoch: 30 and 20 s left, then three jobs of 45 s in two places: 20+45, 30+45, 65+45.
    assert sweep.left(at=20, _0=4, _1=5) == pytest.approx(110)


def test_what_is_done_tells_of_the_rest(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "seed=range(4)")
    sweep.begin(0, at=0)
    sweep.end(0, at=20)
    sweep.begin(1, at=20)
    assert sweep.left(at=25, _1=0) == pytest.approx(15 + 20 + 20)
    sweep.end(1, at=60)
    assert sweep.left(at=60) == pytest.approx(2 * 30), "the mean of 20 and 40"
    sweep.begin(2, at=60)
    sweep.end(2, at=90)
    sweep.begin(3, at=90)
    assert sweep.left(at=200, _3=0) == 0, "longer than expected is not less than nothing"
    sweep.end(3, at=210)
    assert sweep.left(at=210) == 0


def test_a_variant_is_judged_by_its_own_pace(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "conv=standard,orthogonal,fft", "seed=0,1")
    sweep.begin(0, at=0)
    sweep.end(0, at=10)
    sweep.begin(2, at=10)
    sweep.end(2, at=100)
    assert sweep.left(at=100) == pytest.approx(10 + 90 + 2 * 50), "fft is yet unknown: the mean"


def test_epochs_of_earlier_attempts_are_no_work(tmp_path, clock):
    config = Composer().one(["logger=none", "epochs=10", f"output_dir={tmp_path}"])
    config.folder.mkdir(parents=True)
    rows = "".join(f"{5 * epoch},{epoch},1.0\n" for epoch in range(1, 9))
    (config.folder / "history.csv").write_text(f"step,epoch,train/loss\n{rows}")
    sweep = Sweep(tmp_path, clock, "seed=0,1")
    sweep.begin(0, at=0)
    assert sweep.left(at=5, _0=8) is None
    assert sweep.left(at=5, _0=9) == pytest.approx(5 + 50)
    sweep.end(0, at=12)
    assert sweep.left(at=12) == pytest.approx(60), "two epochs took 12 s"


def test_other_epochs_are_other_work(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "epochs=10,40")
    sweep.begin(0, at=0)
    sweep.end(0, at=20)
    assert sweep.left(at=20) == pytest.approx(80)


def test_jobs_that_stop_after_some_steps_are_whole(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "seed=range(3)", "trainer.max_steps=1")
    sweep.begin(0, at=0)
    assert sweep.left(at=1, _0=1) is None, "one epoch of 20? The last one!"
    sweep.end(0, at=2, epochs=0)
    assert sweep.left(at=2) == pytest.approx(4)


def test_the_slow_start_of_the_first_jobs_is_forgotten(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "seed=range(6)")
    for i, took in enumerate((9, 1, 2, 2, 1)):
        sweep.begin(i, at=10 * i)
        sweep.end(i, at=10 * i + took)
    assert sweep.left(at=50) == pytest.approx(2)


def test_what_was_done_before_tells_nothing(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "seed=0,1")
    sweep.end(0, at=0)
    assert sweep.left(at=10) is None


def test_each_line_off_a_terminal_carries_the_time_left(tmp_path, clock, capsys):
    sweep = Sweep(tmp_path, clock, "seed=range(3)")
    board = Board()
    for i in range(3):
        sweep.begin(i, at=75 * i)
        board(sweep.jobs)
        sweep.end(i, at=75 * (i + 1))
        board(sweep.jobs)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "[1/3] defaults: done; about 2:30 left",
        "[2/3] seed=1: done; about 1:15 left",
        "[3/3] seed=2: done",
    ]


def test_thousands_of_jobs_are_overseen_in_no_time(tmp_path, clock):
    sweep = Sweep(tmp_path, clock, "conv=standard,fft")
    sweep.jobs = [
        Job(replace(job.config, tree=job.config.tree | {"seed": seed}))
        for job in sweep.jobs
        for seed in range(1_000)
    ]
    sweep.forecast = Forecast()
    sweep.begin(*range(8), at=0)
    sweep.end(*range(400), at=20)
    began = time.process_time()
    assert sweep.left(at=21) == pytest.approx(1_600 / 8 * 20)
    assert time.process_time() - began < 0.1
