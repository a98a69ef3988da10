import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.train import train

LR = 0.1
GRADIENTS = [2.0, -1.0, 0.5]
START = 3.0


def walk(word: str, **knobs) -> list[float]:
    """Positions of one weight that starts at 3 and sees the three gradients."""
    weight = nn.Parameter(torch.tensor([START], dtype=torch.float64))
    optimizer = cnnlab.create("optimizer", word, iter([weight]), lr=LR, **knobs)
    path = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        path.append(weight.item())
    return path


def adam_by_hand(decoupled: float = 0.0) -> list[float]:
    """Kingma and Ba 2015, algorithm 1, with Loshchilov and Hutter's decoupled decay."""
    x, m, v, path = START, 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= LR * decoupled * x
        x -= LR * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        path.append(x)
    return path


def test_sgd_steps_against_the_gradient():
    assert walk("sgd") == pytest.approx([2.8, 2.9, 2.85])


def test_momentum_keeps_going():  # velocities 2, .9*2-1 = .8, .9*.8+.5 = 1.22
    assert walk("momentum") == pytest.approx([2.8, 2.72, 2.598])


def test_nesterov_looks_ahead():  # g + .9 v: 2+1.8 = 3.8, -1+.72 = -.28, .5+1.098 = 1.598
    assert walk("nesterov") == pytest.approx([2.62, 2.648, 2.4882])


def test_adam_follows_its_paper():
    assert walk("adam") == pytest.approx(adam_by_hand())
    assert walk("adam")[0] == pytest.approx(START - LR)


def test_adamw_decays_apart_from_the_gradient():
    assert walk("adamw") == pytest.approx(adam_by_hand(decoupled=0.01))


def test_adagrad_divides_by_the_root_of_all_squares():
    x, c, path = START, 0.0, []
    for g in GRADIENTS:
        c += g * g
        x -= LR * g / (math.sqrt(c) + 1e-10)
        path.append(x)
    assert walk("adagrad") == pytest.approx(path)
    assert walk("adagrad")[:2] == pytest.approx([2.9, 2.9 + 0.1 / math.sqrt(5)])


def test_rmsprop_divides_by_the_root_of_recent_squares():
    x, c, path = START, 0.0, []
    for g in GRADIENTS:
        c = 0.99 * c + 0.01 * g * g
        x -= LR * g / (math.sqrt(c) + 1e-8)
        path.append(x)
    assert walk("rmsprop") == pytest.approx(path)
    assert walk("rmsprop")[0] == pytest.approx(2.0)  # .1 * 2 / sqrt(.01 * 4)


def test_lbfgs_takes_a_gradient_step_and_then_one_by_its_inverse_hessian():
    curvature = np.array([1.0, 10.0])
    weight = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = cnnlab.create("optimizer", "lbfgs", [weight], lr=0.5, max_iter=1, line_search_fn=None)

    def closure():
        weight.grad = torch.as_tensor(curvature) * weight.detach()
        return 0.5 * weight.detach() @ weight.grad

    x0 = np.ones(2)
    x1 = x0 - 0.5 / 11 * curvature * x0  # lr / |g|_1, the gradient (1, 10)
    s, y = x1 - x0, curvature * (x1 - x0)
    left = np.eye(2) - np.outer(s, y) / (s @ y)
    inverse = left @ (s @ y / (y @ y) * np.eye(2)) @ left.T + np.outer(s, s) / (s @ y)  # BFGS of one pair
    x2 = x1 - 0.5 * inverse @ (curvature * x1)
    for expected in (x1, x2):
        optimizer.step(closure)
        assert weight.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("word", ["sgd", "momentum", "nesterov", "adam", "adagrad", "rmsprop"])
def test_nothing_decays_unless_asked(word):
    assert cnnlab.create("optimizer", word, [nn.Parameter(torch.ones(1))]).defaults["weight_decay"] == 0


def test_weight_decay_of_sgd_adds_to_the_gradient():  # 3 - .1*(2 + .5*3)
    assert walk("sgd", weight_decay=0.5)[0] == pytest.approx(2.65)


@pytest.mark.parametrize("word", cnnlab.available("optimizer"))
def test_a_restored_optimizer_continues_as_the_first(word):
    def run(weight, optimizer, gradients):
        for gradient in gradients:

            def closure(gradient=gradient):
                weight.grad = gradient * weight.detach() ** 3
                return (gradient * weight.detach() ** 4).sum() / 4

            optimizer.step(closure)
        return weight.detach().clone()

    weight = nn.Parameter(torch.ones(4))
    optimizer = cnnlab.create("optimizer", word, [weight])
    run(weight, optimizer, GRADIENTS)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = nn.Parameter(weight.detach().clone())
    restored = cnnlab.create("optimizer", word, [other])
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(run(weight, optimizer, GRADIENTS), run(other, restored, GRADIENTS))


@pytest.mark.parametrize("word", cnnlab.available("optimizer"))
def test_the_default_learning_rate_fits_a_small_problem(word):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 4, generator=generator)
    targets = inputs @ torch.tensor([[0.1], [-0.2], [0.3], [0.1]])
    net = nn.Linear(4, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    optimizer = cnnlab.create("optimizer", word, net.parameters())

    def closure():
        optimizer.zero_grad()
        loss = (net(inputs) - targets).square().mean()
        loss.backward()
        return loss

    for _ in range(400):
        loss = optimizer.step(closure)
    assert loss < 0.02 * targets.square().mean()


def lines(tmp_path: Path, *more: str) -> list[str]:
    return ["logger=none", "threads=1", "trainer.precision=32-true", f"output_dir={tmp_path}", *more]


@pytest.mark.parametrize("schedule", cnnlab.available("schedule"))
@pytest.mark.parametrize("optimizer", cnnlab.available("optimizer"))
def test_every_optimizer_trains_digits_on_every_schedule(optimizer, schedule, tmp_path):
    pair = ["model=linear", f"optimizer={optimizer}", f"schedule={schedule}", "epochs=2"]
    batch_size = 1294 if optimizer == "lbfgs" else 32
    result = train(Composer().one(lines(tmp_path, *pair, f"batch_size={batch_size}")))
    assert result.status == "done", result.error
    assert result.metrics["val/accuracy"] > 0.4


def test_lbfgs_refuses_mini_batches_and_says_which_batch_it_takes(tmp_path):
    config = Composer().one(lines(tmp_path, "optimizer=lbfgs"))
    with pytest.raises(
        RequestError, match=r"^optimizer=lbfgs batch_size=64: must be at least 1294, all training images"
    ):
        train(config)
    assert not config.folder.exists()


def test_lbfgs_counts_each_image_once_at_the_weights_before_the_step(tmp_path):
    """Though each step evaluates the loss many times."""
    config = Composer().one(lines(tmp_path, "optimizer=lbfgs", "batch_size=1294", "epochs=1", "model=linear"))
    data = build_data(config)
    task = build_task(config, data).eval()
    images, labels = data.train
    initial = nn.functional.cross_entropy(task(images), labels).item()
    result = train(config)
    assert result.metrics["train/loss"] == pytest.approx(initial, rel=1e-6)
    assert result.metrics["val/loss"] < 0.3 * initial


def test_lbfgs_sees_one_function_in_a_step_and_another_in_the_next(tmp_path, monkeypatch):
    from cnnlab.task.classify import Classify

    masks: dict[int, list[torch.Tensor]] = {}
    training_step = Classify.training_step

    def noted(self, batch, batch_idx):
        loss = training_step(self, batch, batch_idx)
        masks.setdefault(self.global_step, []).append(torch.rand(3))
        return loss

    monkeypatch.setattr(Classify, "training_step", noted)
    kind = ["optimizer=lbfgs", "optimizer.max_iter=3", "batch_size=1294", "epochs=2"]
    train(Composer().one(lines(tmp_path, *kind, "model=mlp", "model.dense=[8]", "model.dropout=0.5")))
    assert len(masks[0]) > 2 and len(masks[1]) > 2
    assert all(torch.equal(mask, masks[step][0]) for step in (0, 1) for mask in masks[step])
    assert not torch.equal(masks[0][0], masks[1][0])


def test_lbfgs_trains_convolutions_whose_gradients_are_channels_last(tmp_path):
    kind = ["optimizer=lbfgs", "optimizer.max_iter=5", "batch_size=1294", "epochs=2", "model.filters=[4]"]
    config = Composer().one(lines(tmp_path, *kind))
    result = train(config)
    assert result.status == "done", result.error
    losses = [
        row["train/loss"] for row in History(config.folder / "history.csv").rows() if "train/loss" in row
    ]
    assert losses[1] < 0.9 * losses[0]
