import copy
import io
import math
from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset

import cnnlab
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.train import train

OPTIMIZERS = cnnlab.available("optimizer")
SCHEDULES = cnnlab.available("schedule")
LR, EPOCHS, STEPS = 0.2, 4, 5  # 20 steps


def build(
    optimizer: str, schedule: str, epochs=EPOCHS, steps=STEPS, **knobs
) -> tuple[Optimizer, LRScheduler]:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    stepped = cnnlab.create("optimizer", optimizer, [weight], lr=LR)
    return stepped, cnnlab.create(
        "schedule", schedule, stepped, steps=epochs * steps, steps_per_epoch=steps, **knobs
    )


def rates(optimizer: Optimizer, schedule: LRScheduler, steps: int) -> list[float]:
    """The learning rate of each of the next optimiser steps."""
    used = []
    for _ in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step(lambda: torch.ones(()))
        schedule.step()
    return used


def half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def one_cycle(t: int) -> float:
    if t <= 5:  # 0.3 * 20 - 1
        return half_cosine(LR / 25, LR, t / 5)
    return half_cosine(LR, LR / 25 / 1e4, (t - 5) / 14)


CURVES: dict[str, tuple[dict[str, float], Callable[[int], float]]] = {
    "constant": ({}, lambda t: LR),
    "step": ({"step_size": 2, "gamma": 0.5}, lambda t: LR if t < 10 else LR / 2),
    "cosine": ({"eta_min": 0.01}, lambda t: half_cosine(LR, 0.01, t / 20)),
    "one_cycle": ({}, one_cycle),
    "halve": ({"every": 2}, lambda t: LR if t < 10 else LR / 2),
    "exponential": ({"gamma": 0.5}, lambda t: LR * 0.5 ** (t / STEPS)),
    "inverse_time": ({"decay": 2.0}, lambda t: LR / (1 + 2 * t / STEPS)),
    "plateau": ({}, lambda t: LR),  # nothing was validated
}


@pytest.mark.parametrize("schedule", CURVES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_learning_rate_follows_its_formula(optimizer, schedule):
    knobs, curve = CURVES[schedule]
    used = rates(*build(optimizer, schedule, **knobs), EPOCHS * STEPS)
    assert used == pytest.approx([curve(t) for t in range(EPOCHS * STEPS)], rel=1e-6)


def test_every_schedule_has_its_formula_here():
    assert set(CURVES) == set(SCHEDULES)


def test_one_cycle_passes_through_the_hand_computed_points():
    optimizer, schedule = build("sgd", "one_cycle", epochs=1, steps=10)
    used = rates(optimizer, schedule, 10)  # lr 0.2: from 0.008 over (0.008 + 0.2) / 2 to 0.2, then to 8e-7
    assert [used[0], used[1], used[2], used[9]] == pytest.approx([0.008, 0.104, 0.2, 8e-7], rel=1e-6)


def test_cosine_ends_at_zero():
    optimizer, schedule = build("adam", "cosine")
    rates(optimizer, schedule, EPOCHS * STEPS)
    assert schedule.get_last_lr() == pytest.approx([0.0], abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_schedule_changes_the_learning_rate_alone(optimizer, schedule):
    weight = nn.Parameter(torch.ones(2))
    plain = cnnlab.create("optimizer", optimizer, [weight], lr=LR).param_groups[0]
    stepped, scheduler = build(optimizer, schedule)
    rates(stepped, scheduler, 7)
    group = stepped.param_groups[0]
    assert {key: group[key] for key in plain if key not in ("lr", "params")} == {
        key: plain[key] for key in plain if key not in ("lr", "params")
    }


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_restored_schedule_continues_as_the_first(schedule):
    optimizer, scheduler = build("adam", schedule)
    rates(optimizer, scheduler, 7)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    other, restored = build("adam", schedule)
    for part, state in zip((other, restored), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(copy.deepcopy(state))
    assert rates(other, restored, 13) == rates(optimizer, scheduler, 13)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (1, 10), (3, 1)])
def test_short_trainings_have_finite_learning_rates(schedule, epochs, steps):
    used = rates(*build("sgd", schedule, epochs, steps), epochs * steps)
    assert all(math.isfinite(rate) and 0 <= rate <= LR for rate in used)


@pytest.mark.parametrize("pct_start", [0.05, 0.1, 0.2, 0.25, 0.5, 0.999])
def test_one_cycle_takes_every_share_of_rising_steps(pct_start):
    used = rates(*build("sgd", "one_cycle", 1, 20, pct_start=pct_start), 20)
    assert all(math.isfinite(rate) and 0 < rate <= LR for rate in used)


@pytest.mark.parametrize(
    ("schedule", "knobs"),
    [
        ("step", {"step_size": 0}),
        ("step", {"step_size": 1.5}),
        ("step", {"gamma": 0}),
        ("cosine", {"eta_min": -1}),
        ("halve", {"every": 0}),
        ("exponential", {"gamma": 0}),
        ("inverse_time", {"decay": -1}),
        ("plateau", {"factor": 1}),
        ("plateau", {"factor": 0}),
        ("plateau", {"patience": 1.5}),
        ("plateau", {"threshold": -1}),
        ("plateau", {"cooldown": None}),
        ("plateau", {"min_lr": "x"}),
        ("one_cycle", {"pct_start": 0}),
        ("one_cycle", {"pct_start": 1}),
        ("one_cycle", {"div_factor": 0}),
        ("one_cycle", {"final_div_factor": "x"}),
    ],
)
def test_a_wrong_knob_is_named(schedule, knobs):
    with pytest.raises(ValueError, match=rf"^{next(iter(knobs))} must be a .*, got "):
        build("adam", schedule, **knobs)


@pytest.mark.parametrize(
    ("schedule", "knob"),
    [
        *(("step", "gamma"), ("exponential", "gamma"), ("cosine", "eta_min"), ("inverse_time", "decay")),
        *(("one_cycle", "div_factor"), ("one_cycle", "final_div_factor"), ("plateau", "min_lr")),
    ],
)
def test_no_knob_is_infinite(schedule, knob):
    with pytest.raises(ValueError, match=rf"^{knob} must be finite, got inf$"):
        build("adam", schedule, **{knob: math.inf})


CUT = ["model=linear", "batch_size=128", "logger=none", "threads=1", "trainer.log_every_n_steps=1"]


@pytest.mark.parametrize(
    ("schedule", "curve"),
    [
        ("cosine", lambda t: half_cosine(0.001, 0, t / 12)),
        ("one_cycle", lambda t: half_cosine(0.001, 4e-9, (t - 2.6) / 8.4)),  # up in 0.3 * 12 - 1 = 2.6 steps
        ("step", lambda t: 0.001 if t < 11 else 0.0001),  # an epoch has 11 steps all the same
    ],
)
def test_a_run_cut_by_max_steps_ends_its_schedule(schedule, curve, tmp_path):
    knobs = ["schedule.step_size=1"] if schedule == "step" else []
    lines = [*CUT, "epochs=10", "trainer.max_steps=12", f"schedule={schedule}", *knobs]
    config = Composer().one([*lines, f"output_dir={tmp_path}"])
    assert train(config).status == "done"
    rows = [row for row in History(config.folder / "history.csv").rows() if "lr" in row]
    assert len(rows) == 12
    last = [row["lr"] for row in rows[-3:]]  # each of the step to come
    assert last == pytest.approx([curve(t) for t in (10, 11, 12)], rel=1e-6, abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*does not have many workers")
def test_anyones_trainer_may_cut_epochs_by_max_steps():
    task = cnnlab.module("model=linear", "schedule=one_cycle", "optimizer.lr=0.1")
    images = torch.randint(0, 17, (15, 1, 8, 8), dtype=torch.uint8)
    loader = DataLoader(TensorDataset(images, torch.arange(15) % 10), batch_size=3)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=5, max_steps=12, enable_checkpointing=False, **quiet)
    trainer.fit(task, loader, loader)
    assert trainer.global_step == task.steps == 12


LOSSES = [3.0, 2.0, 2.0, 1.999, 2.1, 1.5, 1.6, 1.7, 1.8, 1.9]
# patience 1: reduced at the second epoch in a row that is not 1 % below the least so far
REDUCED = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]  # not below min_lr


def test_plateau_reduces_where_the_loss_stays():
    knobs = {"factor": 0.5, "patience": 1, "threshold": 0.01, "min_lr": 0.2 * LR}
    optimizer, schedule = build("sgd", "plateau", **knobs)
    used = []
    for loss in LOSSES:
        schedule.validated(loss)
        used.append(optimizer.param_groups[0]["lr"] / LR)
    assert used == pytest.approx(REDUCED)


def test_a_restored_plateau_remembers_what_it_has_seen():
    optimizer, schedule = build("sgd", "plateau", patience=2)
    for loss in (1.0, 2.0, 2.0):
        schedule.validated(loss)
    other, restored = build("sgd", "plateau", patience=2)
    restored.load_state_dict(copy.deepcopy(schedule.state_dict()))
    for each in (schedule, restored):
        each.validated(2.0)
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"] == LR / 2


def test_a_plateau_takes_no_notice_of_validation_before_the_training(tmp_path):
    lines = [*CUT, "epochs=3", "schedule=plateau", "schedule.patience=0", "schedule.threshold=0.999"]
    histories = []
    for sanity in (0, 2):
        sane = [f"trainer.num_sanity_val_steps={sanity}", f"output_dir={tmp_path}"]
        config = Composer().one([*lines, *sane])
        assert train(config).status == "done"
        rows = History(config.folder / "history.csv").rows()
        histories.append([(row["step"], row["lr"]) for row in rows if "lr" in row])
    assert histories[0] == histories[1]
    assert len({lr for _, lr in histories[0]}) == 2, "it falls after the second epoch"


def test_a_run_on_a_plateau_lowers_its_learning_rate_by_its_own_val_loss(tmp_path):
    lines = ["model=linear", "batch_size=256", "epochs=6", "logger=none", "threads=1", "schedule=plateau"]
    knobs = ["schedule.patience=0", "schedule.threshold=0.3", "trainer.log_every_n_steps=1"]
    config = Composer().one([*lines, *knobs, "optimizer.lr=0.01", f"output_dir={tmp_path}"])
    assert train(config).status == "done"
    lr, best, reductions = 0.01, math.inf, 0
    for row in History(config.folder / "history.csv").rows():
        if "lr" in row:
            assert row["lr"] == pytest.approx(lr)
        if "val/loss" in row:
            if row["val/loss"] < 0.7 * best:
                best = row["val/loss"]
            else:
                lr, reductions = lr / 2, reductions + 1
    assert 0 < reductions < 6
