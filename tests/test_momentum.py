import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.momentum import Annealed
from cnnlab.train import train

MOVING = [("momentum", {}), ("nesterov", {}), ("rmsprop", {"momentum": 0.9})]


def optimizer_of(word: str, **knobs):
    weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    return weight, cnnlab.create("optimizer", word, [weight], lr=0.1, **knobs)


def test_annealed_momentum_takes_the_hand_computed_steps():
    weight, optimizer = optimizer_of("momentum")
    momentum, path = Annealed(start=0.5, end=0.9), []
    for step, gradient in enumerate([2.0, -1.0, 0.5]):
        momentum(optimizer, step / 2)
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        path.append(weight.item())
    # velocities 2, .7*2 - 1 = .4, .9*.4 + .5 = .86
    assert path == pytest.approx([2.8, 2.76, 2.674])


@pytest.mark.parametrize(("word", "knobs"), MOVING)
def test_momentum_rises_on_a_line_and_stays(word, knobs):
    _, optimizer = optimizer_of(word, **knobs)
    momentum, used = Annealed(over=0.5), []
    momentum.check(optimizer)
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        momentum(optimizer, share)
        used.append(optimizer.param_groups[0]["momentum"])
    assert used == pytest.approx([0.5, 0.598, 0.745, 0.99, 0.99, 0.99])


@pytest.mark.parametrize("schedule", cnnlab.available("schedule"))
def test_a_run_ends_one_step_before_the_last_momentum_on_every_schedule(schedule, tmp_path):
    lines = ["model=linear", "epochs=2", "batch_size=256", "logger=none", "threads=1", "optimizer=nesterov"]
    config = Composer().one(
        [*lines, "momentum=annealed", f"schedule={schedule}", f"output_dir={tmp_path}"]
    )  # 6 steps an epoch
    assert train(config).status == "done"
    last = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)
    group = last["optimizer_states"][0]["param_groups"][0]
    assert group["momentum"] == pytest.approx(0.5 + 0.49 * 11 / 12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad", "rmsprop", "lbfgs"])
def test_an_optimizer_without_momentum_is_refused_before_anything_is_written(optimizer, tmp_path):
    lines = ["momentum=annealed", f"optimizer={optimizer}", "batch_size=2000", f"output_dir={tmp_path}"]
    with pytest.raises(RequestError, match=r"^momentum=annealed: the optimizer must have a momentum"):
        train(Composer().one(lines))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"start": -0.1}, "start must be a number >= 0 and < 1, got -0.1"),
        ({"end": 1}, "end must be a number >= 0 and < 1, got 1"),
        ({"over": 0}, "over must be a number > 0 and <= 1, got 0"),
        ({"over": 2}, "over must be a number > 0 and <= 1, got 2"),
    ],
)
def test_a_wrong_knob_is_named(knobs, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        Annealed(**knobs)
