import io

import pytest
import torch
from torch import nn

import cnnlab

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


@pytest.mark.parametrize("word", ["sgd", "momentum", "nesterov", "adam"])
def test_nothing_decays_unless_asked(word):
    assert cnnlab.create("optimizer", word, [nn.Parameter(torch.ones(1))]).defaults["weight_decay"] == 0


def test_weight_decay_of_sgd_adds_to_the_gradient():  # 3 - .1*(2 + .5*3)
    assert walk("sgd", weight_decay=0.5)[0] == pytest.approx(2.65)


@pytest.mark.parametrize("word", cnnlab.available("optimizer"))
def test_a_restored_optimizer_continues_as_the_first(word):
    def run(weight, optimizer, gradients):
        for gradient in gradients:
            weight.grad = torch.full((4,), gradient)
            optimizer.step()
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
    for _ in range(400):
        optimizer.zero_grad()
        loss = (net(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * targets.square().mean()
