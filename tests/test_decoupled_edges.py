"""The decoupled convolutions at their edges: zeros, tiny and bf16 inputs, gradients, knobs without sense."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cnnlab.conv import blockwise
from cnnlab.conv.patch_norm import patch_norm
from tests.test_decoupled import ANGULAR, LEGAL, WEIGHTING, WITH_RHO, create, images


@pytest.mark.parametrize("knobs", LEGAL, ids="-".join)
def test_patches_and_filters_of_zeros_give_zero_and_finite_gradients(knobs: tuple[str, ...]) -> None:
    word, angular, weighting, radius = knobs
    conv = create(word, 4, 6, 3, padding=1, bias=False, angular=angular, weighting=weighting, radius=radius)
    conv.weight.data[2] = 0
    for x in (images(2, 4, 9, 8), torch.zeros(2, 4, 9, 8)):
        x.requires_grad_()
        conv.zero_grad()
        y = conv(x)
        assert not y[:, 2].any()
        assert not y[..., :3, :3].any()
        y.sum().backward()
        assert x.grad is not None
        for gradient in (x.grad, conv.weight.grad):
            assert gradient.isfinite().all()
            assert gradient.abs().max() < 1e3


@pytest.mark.parametrize("knobs", LEGAL, ids="-".join)
def test_gradients_are_those_of_finite_differences(knobs: tuple[str, ...]) -> None:
    word, angular, weighting, radius = knobs
    learnable = {"learnable_rho": True} if word in WITH_RHO else {}
    choice = {"angular": angular, "weighting": weighting, "radius": radius, **learnable}
    conv = create(word, 2, 2, 3, **choice).double()
    parameters = dict(conv.named_parameters())
    x = torch.randn(
        2, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(conv, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("angular", ANGULAR)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_patch_along_its_filter_gives_plus_or_minus_one_without_nan(
    angular: str, sign: int, dtype: torch.dtype
) -> None:
    conv = create("decoupled_sphere", 4, 1, 3, bias=False, angular=angular).to(dtype)
    conv.weight.data.zero_()[0, 2, 1, 1] = 1  # cos is 1 exactly, without rounding
    x = (sign * 7 * conv.weight.detach()).requires_grad_()
    y = conv(x)
    assert y.item() == pytest.approx(sign, abs=1e-3)
    y.backward()
    assert conv.weight.grad.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("angular", ANGULAR)
@pytest.mark.parametrize("weighting", WEIGHTING)
def test_autocast_rounds_the_convolution_alone(angular: str, weighting: str) -> None:
    conv, x = (
        create("decoupled_tanh", 8, 6, 3, angular=angular, weighting=weighting, rho=3.0),
        images(2, 8, 9, 8),
    )
    with torch.autocast("cpu", torch.bfloat16):
        y, norm = conv(x.bfloat16()), patch_norm(conv, x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv(x.bfloat16().float()), rtol=0.03, atol=0.02)
    assert norm.dtype == torch.float32
    torch.testing.assert_close(norm, patch_norm(conv, x.bfloat16().double()).float())


@pytest.mark.parametrize("knobs", LEGAL, ids="-".join)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_of_examples_give_what_the_whole_batch_gives(
    knobs: tuple[str, ...], layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, angular, weighting, radius = knobs
    learnable = {"learnable_rho": True} if word in WITH_RHO else {}
    choice = {"angular": angular, "weighting": weighting, "radius": radius, **learnable}
    conv = create(word, 4, 6, 3, padding=1, groups=2, **choice).double().to(memory_format=layout)
    x = images(5, 4, 9, 8).double().to(memory_format=layout).requires_grad_()
    results = []
    for block in (2**19, 2 * 6 * 9 * 8):  # all five; two, two and one
        monkeypatch.setattr(blockwise, "BLOCK", block)
        y = conv(x)
        assert y.is_contiguous(memory_format=layout)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])])
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-11, atol=1e-11)


def test_what_follows_may_work_in_place() -> None:
    conv, x = create("decoupled_tanh", 4, 6, 3), images(2, 4, 9, 8)
    (expected,) = torch.autograd.grad(conv(x).relu().sum(), [conv.weight])
    (found,) = torch.autograd.grad(conv(x).relu_().sum(), [conv.weight])
    assert torch.equal(found, expected)


def test_a_penalty_on_the_gradient_can_be_trained() -> None:
    conv = create("decoupled_tanh", 2, 2, 2, angular="sigmoid", groups=2).double()
    x = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parameters = dict(conv.named_parameters())

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(conv, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradgradcheck(forward, (x.requires_grad_(), *parameters.values()), fast_mode=True)


def test_an_image_without_a_batch_and_a_module_in_bf16_work_as_in_conv2d() -> None:
    conv, x = create("decoupled_tanh", 4, 6, 3, padding=1, groups=2), images(2, 4, 9, 8)
    torch.testing.assert_close(conv(x[0]), conv(x)[0])
    assert conv.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_tiny_inputs_keep_their_angle() -> None:
    conv, x = create("decoupled_sphere", 4, 6, 3, bias=False), images(2, 4, 9, 8)
    torch.testing.assert_close(conv(x * 1e-15), conv(x))
    torch.testing.assert_close(conv(x * 1e15), conv(x))


@pytest.mark.parametrize(
    ("word", "knobs", "message"),
    [
        ("sphere", {"rho": 2.0}, "rho must be left at 1.0, got 2.0: SphereConv2d with .* has no use for it"),
        ("ball", {"rho": -1}, "rho must be a number > 0, got -1"),
        ("ball", {"rho": 0}, "rho must be a number > 0, got 0"),
        ("ball", {"beta": 0.1}, "beta must be left at 0.5, got 0.1"),
        ("mix", {"beta": 0.5, "learnable_rho": True}, "learnable_rho must be left at False, got True"),
        ("mix", {"beta": -0.5}, "beta must be a number >= 0, got -0.5"),
        ("log", {"radius": "relative"}, "radius must be left at absolute, got relative"),
        ("linear", {"learnable_rho": "yes"}, "learnable_rho must be true or false, got 'yes'"),
        ("seg", {"angular": "cosin"}, "angular must be one of .*did you mean 'cosine'"),
        ("seg", {"weighting": "joint_tanh"}, "weighting must be one of none, linear; got 'joint_tanh'"),
        (
            "tanh",
            {"sigmoid_k": 0.5},
            "sigmoid_k must be left at 0.3, got 0.5: TanhConv2d with angular=cosine",
        ),
        ("tanh", {"weight_rho": 0.5}, "weight_rho must be left at None, got 0.5: .* weighting=none"),
        ("tanh", {"weighting": "product_tanh", "weight_rho": 0}, "weight_rho must be a number > 0, got 0"),
        ("seg", {"rho": float("inf")}, "rho must be finite, got inf"),
        ("tanh", {"alpha": float("nan")}, "alpha must be a number > 0, got nan"),
        ("ball", {"projection_every": -1}, "projection_every must be a whole number >= 0, got -1"),
        (
            "ball",
            {"projection_norm": 2.0},
            "projection_norm must be left at 1.0, got 2.0: projection_every=0",
        ),
        (
            "ball",
            {"projection_every": 1, "projection_norm": 0},
            "projection_norm must be a number > 0, got 0",
        ),
        (
            "ball",
            {"projection_every": 1, "weighting": "linear"},
            "projection_every must be left at 0, got 1: weighting=linear makes .w. part of the function",
        ),
        (
            "tanh",
            {"weighted_gradients": True, "weighting": "joint_tanh"},
            "weighted_gradients must be left at False, got True: weighting=joint_tanh makes",
        ),
        ("log", {"weighted_gradients": 1}, "weighted_gradients must be true or false, got 1"),
    ],
)
def test_a_knob_without_effect_or_sense_is_refused(word: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(f"decoupled_{word}", 4, 6, 3, **knobs)
