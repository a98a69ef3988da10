"""What the decoupled convolutions do about gradients that go with 1/|w|, and Lipschitz constants."""

import inspect

import pytest
import torch
from torch import Tensor, nn

from cnnlab.compose import Composer
from cnnlab.conv.decoupled import MixConv2d, SphereConv2d
from cnnlab.conv.lipschitz import operator_norm
from cnnlab.train import train
from tests.test_decoupled import ANGULAR, WORDS, create, images


def weight_gradient(conv: nn.Module, x: Tensor) -> Tensor:
    conv.zero_grad()
    conv(x).square().sum().backward()
    return conv.weight.grad.clone()


def pair(**knobs: object) -> SphereConv2d:
    """w = (3, 4) on two pixels in a row."""
    conv = SphereConv2d(1, 1, (1, 2), bias=False, **knobs)
    conv.weight.data = torch.tensor([[[[3.0, 4.0]]]])
    return conv


def test_projection_by_hand() -> None:
    conv = pair(projection_every=100, projection_norm=2.0)
    conv.project()
    torch.testing.assert_close(conv.weight.flatten().tolist(), [1.2, 1.6])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("angular", ANGULAR)
def test_projection_keeps_the_function_and_rescales_the_gradient(word: str, angular: str) -> None:
    conv = create(word, 4, 6, 3, groups=2, angular=angular, projection_every=5, projection_norm=3.0).double()
    x, length = images(2, 4, 9, 8).double(), conv.weight.flatten(1).norm(dim=1)
    before, gradient = conv(x), weight_gradient(conv, x)
    conv.project()
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.full((6,), 3.0).double())
    torch.testing.assert_close(conv(x), before)
    torch.testing.assert_close(weight_gradient(conv, x), gradient * (length / 3).view(-1, 1, 1, 1))


def test_projection_leaves_a_filter_of_zeros_and_reaches_tiny_and_large_ones() -> None:
    conv = create("decoupled_ball", 4, 4, 3, projection_every=1)
    conv.weight.data *= torch.tensor([0.0, 1e-15, 1.0, 1e15]).view(-1, 1, 1, 1)
    conv.project()
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.tensor([0.0, 1.0, 1.0, 1.0]))
    assert conv.weight.requires_grad
    assert conv.weight.is_leaf


def test_a_weighted_gradient_by_hand() -> None:
    """(x/|x| - cos w/|w|) / |w| for x = (1, 0): ((1, 0) - 3/5 (3/5, 4/5)) / 5."""
    for weighted, expected in ((False, [0.128, -0.096]), (True, [0.64, -0.48])):
        conv = pair(weighted_gradients=weighted)
        conv(torch.tensor([[[[1.0, 0.0]]]])).backward()
        torch.testing.assert_close(conv.weight.grad.flatten().tolist(), expected)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("angular", ANGULAR)
def test_weighting_multiplies_the_gradient_of_a_filter_by_its_length_and_changes_nothing_else(
    word: str, angular: str
) -> None:
    plain, weighted = (
        create(word, 4, 6, 3, groups=2, angular=angular, weighted_gradients=flag).double()
        for flag in (False, True)
    )
    x = images(2, 4, 9, 8).double()
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.equal(plain(x), weighted(x))
    length = plain.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected, found = weight_gradient(plain, inputs[0]), weight_gradient(weighted, inputs[1])
    torch.testing.assert_close(found, expected * length)
    assert not torch.allclose(found, expected)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert torch.equal(plain.bias.grad, weighted.bias.grad)


def test_a_weighted_gradient_of_a_filter_of_zeros_is_zero() -> None:
    conv = create("decoupled_tanh", 4, 6, 3, weighted_gradients=True)
    conv.weight.data[2] = 0
    gradient = weight_gradient(conv, images(2, 4, 9, 8))
    assert gradient.isfinite().all()
    assert not gradient[2].any()
    assert gradient[3].any()


def test_linear_has_a_lipschitz_constant_where_it_is_linear() -> None:
    conv = create("decoupled_linear", 1, 1, 1, alpha=2.0, weighting="linear")
    conv.weight.data.fill_(-3.0)
    assert conv.lipschitz((5, 4)) == pytest.approx(6.0)
    conv, stock = create("decoupled_linear", 4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
    stock.weight.data = conv.weight.data / conv.weight.data.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert conv.lipschitz((6, 7)) == pytest.approx(operator_norm(stock, (6, 7)), rel=1e-5)
    for angular in ANGULAR:
        conv = create("decoupled_linear", 4, 6, 3, angular=angular)
        assert hasattr(conv, "lipschitz") == conv.linear == (angular == "cosine")


def test_mix_takes_what_the_others_take_with_a_beta_of_its_own() -> None:
    mix, others = (inspect.signature(kind).parameters for kind in (MixConv2d, SphereConv2d))
    assert list(mix) == list(others)
    assert [name for name in mix if mix[name] != others[name]] == ["beta"]
    conv = MixConv2d(4, 6, 3, padding="same", angular="sigmoid", sigmoid_k=0.5, alpha=2.0, beta=3.0)
    assert (conv.padding, conv.angular, conv.sigmoid_k, conv.alpha, conv.beta) == (
        "same",
        "sigmoid",
        0.5,
        2.0,
        3.0,
    )


def test_a_run_projects_after_every_kth_optimiser_step(tmp_path, monkeypatch):
    lengths, project = [], SphereConv2d.project

    def spied(self):
        project(self)
        lengths.append(self.weight.flatten(1).norm(dim=1).detach())

    monkeypatch.setattr(SphereConv2d, "project", spied)
    lines = ["conv=decoupled_sphere", "conv.projection_every=3", "conv.projection_norm=2", "epochs=1"]
    lines += ["trainer.accumulate_grad_batches=2", "batch_size=128", "logger=none", "model.filters=[4]"]
    assert train(Composer().one([*lines, f"output_dir={tmp_path}"])).status == "done"
    assert len(lengths) == 2 * 2  # 6 steps of two batches, two convolutions
    assert all(torch.allclose(length, torch.full_like(length, 2.0)) for length in lengths)
