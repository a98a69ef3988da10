import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.build import module
from cnnlab.dropconnect import dropconnect


def drawn(net: nn.Module, image: torch.Tensor, p: float, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return dropconnect(net, image, p)


def test_each_weight_is_dropped_with_its_probability_and_the_mean_is_kept():
    net = nn.Linear(400, 300, bias=False)
    net.weight.data.fill_(1.0)
    masked = drawn(net, torch.eye(400), 0.3).T  # (300, 400): the weight that was used
    kept = masked != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.007)  # 5 deviations
    torch.testing.assert_close(masked[kept], torch.full_like(masked[kept], 1 / 0.7))


def test_dropped_weights_get_no_gradient_and_the_others_the_scaled_one():
    net = nn.Linear(50, 1)
    net.weight.data.fill_(2.0)
    output = drawn(net, torch.eye(50), 0.5)
    output.sum().backward()
    used = output.detach().squeeze(1) - net.bias.item() != 0
    assert 0 < used.sum() < 50
    assert net.weight.grad[0].tolist() == [2.0 if each else 0.0 for each in used]
    assert net.bias.grad.item() == 50, "biases are kept"


@pytest.mark.parametrize(
    "variant", ["standard", "flipped", "depthwise_separable", "flattened", "decoupled_tanh"]
)
def test_the_weights_of_every_factor_are_dropped(variant):
    conv = cnnlab.create("conv", variant, 3, 4, 3, bias=False)
    net, image = nn.Sequential(conv), torch.randn(2, 3, 6, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    outputs = [drawn(net, image, 0.5, seed) for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], net(image))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    outputs[0].sum().backward()
    assert all(0 < (p.grad == 0).float().mean() < 1 for p in net.parameters())


def test_nothing_is_dropped_in_eval_mode_nor_with_probability_0():
    net, image = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), torch.randn(2, 1, 5, 5)
    expected = net(image)
    state = torch.get_rng_state()
    assert torch.equal(dropconnect(net, image, 0.0), expected)
    assert torch.equal(dropconnect(net.eval(), image, 0.9), net(image))
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_and_resting_layers_keep_their_weights():
    net, image = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9)), torch.randn(2, 9)
    net[0].requires_grad_(False)
    net[1].eval()
    assert torch.equal(drawn(net, image, 0.5), net(image))


def test_a_task_trains_with_it_and_predicts_without():
    task = module("regularizer.dropconnect=0.5", "model.filters=[4]")
    image = torch.randint(0, 255, (3, 1, 8, 8), dtype=torch.uint8)
    assert not torch.equal(task(image), task(image))
    task.eval()
    assert torch.equal(task(image), task(image))
