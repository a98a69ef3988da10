"""The decoupled convolutions against patches cut out one by one in float64, and against their source."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cnnlab
from cnnlab.conv.geometry import output_hw
from cnnlab.conv.patch_norm import patch_norm

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's own

WORDS = [word for word in cnnlab.available("conv") if word.startswith("decoupled_")]
WITH_RHO = ("decoupled_ball", "decoupled_tanh", "decoupled_seg")
ANGULAR = ("cosine", "linear", "sigmoid", "square_cosine")
WEIGHTING = ("none", "linear", "joint_tanh", "product_tanh")


def create(word: str, *geometry: Any, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return cnnlab.create("conv", word, *geometry, **arguments)


def images(*shape: int) -> Tensor:
    """Negative, positive and large values, and corners of zeros."""
    x = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    x[..., :4, :4] = 0
    return x


def reference(conv: Any, x: Tensor, mean_norm: float | None = None) -> Tensor:
    """The formulas as the paper writes them, on unfolded patches, with theta itself, in float64."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = F.pad(x.double(), conv._reversed_padding_repeated_twice, mode)
    patches = F.unfold(padded, conv.kernel_size, conv.dilation, 0, conv.stride)
    patches = patches.unflatten(1, (conv.groups, 1, -1))  # (N, groups, 1, in/groups*kh*kw, L)
    filters = conv.weight.double().flatten(1).unflatten(0, (conv.groups, -1)).unsqueeze(-1)
    norm_x = patches.square().sum(-2).sqrt()  # (N, groups, 1, L)
    norm_w = filters.square().sum(-2).sqrt()  # (groups, out/groups, 1)
    cosine = (patches * filters).sum(-2) / (norm_x * norm_w).clamp_min(1e-300)
    theta = torch.acos(cosine.clamp(-1, 1))

    k = conv.sigmoid_k
    step = torch.exp(theta / k - math.pi / (2 * k))
    top = math.exp(-math.pi / (2 * k))
    g = {
        "cosine": cosine,
        "linear": 1 - 2 * theta / math.pi,
        "sigmoid": (1 + top) / (1 - top) * (1 - step) / (1 + step),
        "square_cosine": cosine.sign() * cosine**2,
    }[conv.angular]

    a, b, rho = conv.alpha, conv.beta, torch.tensor(conv.initial_rho, dtype=torch.float64)
    if "log_rho" in dict(conv.named_parameters()):
        rho = conv.log_rho.double().exp().view(conv.groups, -1, 1)
    if conv.radius == "relative":
        rho = rho * (norm_x.mean() if mean_norm is None else mean_norm)
    s = norm_x * norm_w if conv.weighting == "joint_tanh" else norm_x
    h = {
        "SphereConv2d": torch.full_like(s, a),
        "BallConv2d": a * torch.minimum(s, rho) / rho,
        "TanhConv2d": a * torch.tanh(s / rho),
        "LinearConv2d": a * s,
        "SegConv2d": torch.where(s <= rho, a * s, b * s + a * rho - b * rho),
        "LogConv2d": a * torch.log(1 + s),
        "MixConv2d": a * s + b * torch.log(1 + s),
    }[type(conv).__name__]
    weight = {"linear": norm_w, "product_tanh": torch.tanh(norm_w / conv.weight_rho)}.get(conv.weighting, 1.0)

    y = (h * g * weight).flatten(1, 2)
    bias = 0 if conv.bias is None else conv.bias.double().view(-1, 1)
    return (y + bias).unflatten(-1, output_hw(conv, x.shape[-2:]))


def is_legal(word: str, weighting: str, radius: str) -> bool:
    return (weighting in ("none", "linear") or word == "decoupled_tanh") and (
        radius == "absolute" or word in WITH_RHO
    )


LEGAL = [
    (word, angular, weighting, radius)
    for word, angular, weighting, radius in itertools.product(
        WORDS, ANGULAR, WEIGHTING, ("absolute", "relative")
    )
    if is_legal(word, weighting, radius)
]


@pytest.mark.parametrize("knobs", LEGAL, ids="-".join)
def test_every_formula_equals_the_slow_reference(knobs: tuple[str, ...]) -> None:
    word, angular, weighting, radius = knobs
    rho = {"rho": 0.7 if radius == "relative" else 4.0} if word in WITH_RHO else {}
    beta = {"beta": 0.3} if word in ("decoupled_seg", "decoupled_mix") else {}
    choice = {"angular": angular, "weighting": weighting, "radius": radius, **rho, **beta}
    conv = create(word, 4, 6, 3, padding=1, groups=2, alpha=1.5, **choice).double()
    x = images(2, 4, 9, 8).double()
    torch.testing.assert_close(conv(x), reference(conv, x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(conv.float()(x.float()).double(), reference(conv, x), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 1},
        {"kernel_size": (2, 5), "stride": (3, 2), "padding": (1, 2)},
        {"kernel_size": 4, "padding": "same", "dilation": (2, 1)},
        {"kernel_size": 3, "padding": 2, "padding_mode": "reflect", "groups": 2},
        {"kernel_size": 3, "padding": (0, 3), "padding_mode": "replicate", "dilation": 2},
        {"kernel_size": 3, "padding": "same", "padding_mode": "circular", "bias": False},
        {"kernel_size": 3, "padding": 6, "stride": 4},  # patches of padding alone
    ],
    ids=lambda geometry: "-".join(map(str, geometry.values())),
)
def test_every_geometry_reaches_the_patch_norm(word: str, geometry: dict[str, Any]) -> None:
    conv, x = create(word, 4, 6, angular="linear", **geometry).double(), images(2, 4, 11, 10).double()
    torch.testing.assert_close(conv(x), reference(conv, x), rtol=1e-9, atol=1e-9)


def test_linear_with_linear_weighting_is_conv2d_itself() -> None:
    conv = create("decoupled_linear", 4, 6, 3, padding=1, weighting="linear")
    stock = nn.Conv2d(4, 6, 3, padding=1)
    stock.load_state_dict(conv.state_dict())
    assert torch.equal(conv(images(2, 4, 9, 8)), stock(images(2, 4, 9, 8)))
    assert conv.is_convolution


@pytest.mark.parametrize(
    ("knobs", "linear", "is_convolution"),
    [
        ({}, True, False),
        ({"weighting": "linear"}, True, True),
        ({"weighting": "linear", "alpha": 2.0}, True, False),
        ({"weighting": "linear", "angular": "sigmoid"}, False, False),
    ],
)
def test_linear_claims_what_its_knobs_make_true(
    knobs: dict[str, Any], linear: bool, is_convolution: bool
) -> None:
    conv, x = create("decoupled_linear", 4, 6, 3, bias=False, **knobs), images(2, 4, 9, 8)
    assert (conv.linear, conv.is_convolution) == (linear, is_convolution)
    assert torch.allclose(conv(x[:1] + x[1:]), conv(x[:1]) + conv(x[1:]), atol=1e-5) == linear
    assert torch.allclose(conv(x), F.conv2d(x, conv.weight), atol=1e-5) == is_convolution


@pytest.mark.parametrize("angular", ANGULAR)
def test_operators_are_special_cases_of_each_other(angular: str) -> None:
    x = images(2, 4, 9, 8)

    def output(word: str, **knobs: Any) -> Tensor:
        return create(f"decoupled_{word}", 4, 6, 3, angular=angular, **knobs)(x)

    same = torch.testing.assert_close
    same(output("seg", alpha=0.7, beta=0.7, rho=3.0), output("linear", alpha=0.7))
    same(output("seg", alpha=0.5, beta=0.0, rho=4.0), output("ball", alpha=2.0, rho=4.0))
    same(output("ball", alpha=2.0, rho=1e-3), output("sphere", alpha=2.0))  # every patch lies beyond rho
    same(output("mix", alpha=0.7, beta=0.0), output("linear", alpha=0.7))
    same(output("tanh", alpha=2.0, rho=1e-3), output("sphere", alpha=2.0))


@pytest.mark.parametrize("word", WITH_RHO)
def test_the_relative_radius_is_that_of_the_official_code(word: str) -> None:
    """wy1iu/DCNets, with its 1e-4 inside the roots; r = 1, so rho_c = 1 + 1e-4."""
    conv, x = create(word, 4, 6, 3, padding=1, bias=False, radius="relative"), images(8, 4, 9, 8).abs() + 1
    wt = conv.weight / (conv.weight.square().sum((1, 2, 3), keepdim=True) + 1e-4).sqrt()
    norm = (F.conv2d(x.square(), torch.ones(1, 4, 3, 3), padding=1) + 1e-4).sqrt()
    d, mean, rho = F.conv2d(x, wt, padding=1), norm.mean(), 1 + 1e-4
    expected = {
        "decoupled_ball": d / (rho * mean + F.relu(norm - rho * mean)),
        "decoupled_tanh": d / norm * torch.tanh(norm / mean / rho),
        "decoupled_seg": d / norm * torch.where(norm < rho * mean, norm, 0.5 * norm + 0.5 * rho * mean),
    }[word]
    torch.testing.assert_close(conv(x), expected, rtol=1e-3, atol=1e-4)


def test_the_running_mean_norm_starts_with_the_first_batch_and_serves_evaluation() -> None:
    conv = create("decoupled_tanh", 4, 6, 3, radius="relative", rho=0.5).double()
    first, second = images(2, 4, 9, 8).double(), 3 * images(2, 4, 9, 8).double()
    torch.testing.assert_close(conv.eval()(first), reference(conv, first, 1.0))  # no batch yet
    conv.train()(torch.zeros_like(first))
    torch.testing.assert_close(conv.eval()(first), reference(conv, first, 1.0))  # zeros say nothing
    conv.train()(first)
    mean = patch_norm(conv, first).mean().item()
    torch.testing.assert_close(conv.eval()(second), reference(conv, second, mean))
    conv.train()(second)
    torch.testing.assert_close(conv.running_norm.item(), 0.999 * mean + 0.001 * 3 * mean)
    again = create("decoupled_tanh", 4, 6, 3, radius="relative", rho=0.5).double()
    again.load_state_dict(conv.state_dict())
    assert torch.equal(again.eval()(second), conv.eval()(second))


@pytest.mark.parametrize("word", WITH_RHO)
@pytest.mark.parametrize(("radius", "rho"), [("absolute", 8.0), ("relative", 1.0)])
def test_a_learnable_rho_starts_at_rho_and_is_trained_per_filter(word: str, radius: str, rho: float) -> None:
    x, knobs = images(2, 4, 9, 8).double(), {"radius": radius, "rho": rho}
    fixed = create(word, 4, 6, 3, groups=2, **knobs).double()
    conv = create(word, 4, 6, 3, groups=2, learnable_rho=True, **knobs).double()
    torch.testing.assert_close(conv(x), fixed(x), rtol=1e-6, atol=1e-6)
    conv.log_rho.data += torch.linspace(-0.2, 0.2, 6).double()
    torch.testing.assert_close(conv(x), reference(conv, x), rtol=1e-9, atol=1e-9)
    conv(x).square().sum().backward()
    assert conv.log_rho.shape == (6,)
    assert conv.log_rho.grad.isfinite().all()
    assert conv.log_rho.grad.count_nonzero() == 6


def test_the_radius_of_the_filter_factor_is_rho_unless_given() -> None:
    knobs = {"weighting": "product_tanh", "rho": 2.0}
    x = images(2, 4, 9, 8)
    conv, same, other = (
        create("decoupled_tanh", 4, 6, 3, bias=False, weight_rho=w, **knobs) for w in (None, 2.0, 0.5)
    )
    assert torch.equal(conv(x), same(x))
    length = conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1)
    torch.testing.assert_close(other(x), conv(x) * torch.tanh(length / 0.5) / torch.tanh(length / 2))


def test_a_sigmoid_is_linear_for_a_large_k_and_a_step_for_a_small_one() -> None:
    x = images(2, 4, 9, 8)
    linear, flat, steep = (
        create("decoupled_sphere", 4, 6, 3, bias=False, **knobs)(x)
        for knobs in (
            {"angular": "linear"},
            {"angular": "sigmoid", "sigmoid_k": 100.0},
            {"angular": "sigmoid", "sigmoid_k": 1e-4},
        )
    )
    torch.testing.assert_close(flat, linear, rtol=1e-3, atol=1e-4)
    sharp = linear.abs() > 0.01
    torch.testing.assert_close(steep[sharp], linear.sign()[sharp])
