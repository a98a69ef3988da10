"""What skew_orthogonal and cayley share, on operators written out as dense matrices."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cnnlab
from cnnlab.conv.isometry import IsometricConv2d, to_blocks

WORDS = ("skew_orthogonal", "cayley")
KEEPING: dict[str, dict[str, Any]] = {  # in * stride^2 <= out, and padding of half the kernel
    "k1": {"kernel_size": 1},
    "k3": {"kernel_size": 3, "padding": 1},
    "same": {"kernel_size": (5, 3), "padding": "same", "dilation": (1, 2)},
    "square": {"out_channels": 2, "kernel_size": 3, "padding": 1},
    "stride": {"kernel_size": 3, "padding": 1, "stride": 2},
    "stride_beyond_the_kernel": {"out_channels": 12, "kernel_size": 1, "stride": (2, 3)},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
}
LOSING: dict[str, dict[str, Any]] = {
    "fewer_channels": {"in_channels": 5, "out_channels": 3, "kernel_size": 3, "padding": 1},
    "fewer_by_stride": {"in_channels": 3, "out_channels": 5, "kernel_size": 3, "padding": 1, "stride": 2},
    "valid": {"kernel_size": (3, 4), "padding": "valid"},
    "valid_stride": {"kernel_size": 5, "stride": 2, "dilation": 2},
    "even": {"kernel_size": 4, "padding": 2},
    "wide_padding": {"kernel_size": 3, "padding": (3, 2), "stride": (1, 2)},
}


def build(word: str, **arguments: Any) -> IsometricConv2d:
    torch.manual_seed(0)
    return cnnlab.create("conv", word, **({"in_channels": 2, "out_channels": 8} | arguments))


def dense(conv: nn.Module, *shape: int) -> Tensor:
    """The operator's matrix, its bias taken off, in float64."""
    columns = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (conv.double()(columns) - conv(torch.zeros(1, *shape).double())).flatten(1).mT


def test_blocks_are_those_of_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 6, 4)
    assert torch.equal(to_blocks(x, (2, 2)), F.pixel_unshuffle(x, 2))
    assert torch.equal(to_blocks(x, (3, 1))[:, :3], torch.stack([x[:, 0, i::3] for i in range(3)], 1))


@pytest.mark.parametrize("geometry", KEEPING)
@pytest.mark.parametrize(("word", "mode"), [("skew_orthogonal", "zeros"), *((w, "circular") for w in WORDS)])
def test_the_norm_of_an_image_is_kept(word: str, mode: str, geometry: str) -> None:
    conv = build(word, padding_mode=mode, bias=False, **KEEPING[geometry])
    for hw in ((8, 6), (7, 5), (3, 4)):
        x = torch.randn(4, 2, *hw)
        ratio = conv(x).square().sum((1, 2, 3)) / x.square().sum((1, 2, 3))
        torch.testing.assert_close(
            ratio, torch.ones(4), rtol=0, atol=1e-3 if word == "skew_orthogonal" else 1e-5
        )


@pytest.mark.parametrize("geometry", KEEPING)
@pytest.mark.parametrize(("word", "mode"), [("skew_orthogonal", "zeros"), *((w, "circular") for w in WORDS)])
def test_every_singular_value_is_one(word: str, mode: str, geometry: str) -> None:
    conv = build(word, padding_mode=mode, **KEEPING[geometry])
    values = torch.linalg.svdvals(dense(conv, 2, 7, 6))
    assert len(values) == 2 * 7 * 6  # no direction of the image is lost
    assert (values - 1).abs().max() <= (conv.tolerance if word == "skew_orthogonal" else 1e-12)


@pytest.mark.parametrize("geometry", KEEPING | LOSING)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("word", WORDS)
def test_nothing_is_stretched_whatever_the_geometry(word: str, mode: str, geometry: str) -> None:
    try:
        conv = build(word, padding_mode=mode, **(KEEPING | LOSING)[geometry])
    except NotImplementedError:
        assert (mode, geometry) in {("circular", "wide_padding"), ("circular", "even")}
        return
    hw = (9, 10)
    norm = torch.linalg.matrix_norm(dense(conv, conv.in_channels, *hw), 2).item()
    assert norm <= 1 + 2e-4
    assert conv.lipschitz(hw) == pytest.approx(norm, rel=2e-5)


def test_with_fewer_channels_the_rows_are_orthonormal() -> None:
    for word in WORDS:
        for geometry in ("fewer_channels", "fewer_by_stride"):
            conv = build(word, padding_mode="circular", **LOSING[geometry])
            values = torch.linalg.svdvals(dense(conv, conv.in_channels, 6, 4))
            torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=2e-4)


def test_zero_padding_costs_cayley_the_norm_but_not_skew_orthogonal() -> None:
    lost = {}
    for word in WORDS:
        matrix = dense(build(word, kernel_size=3, padding=1), 2, 6, 5)
        lost[word] = 1 - torch.linalg.svdvals(matrix).min().item()
    assert lost["cayley"] > 0.01 and abs(lost["skew_orthogonal"]) < 2e-4


def test_less_padding_cuts_the_border_off_and_more_adds_zeros_around_the_image() -> None:
    x = torch.randn(2, 2, 9, 8)
    none, half, more = (build("skew_orthogonal", kernel_size=3, padding=p) for p in (0, 1, 3))
    torch.testing.assert_close(none(x), half(x)[..., 1:-1, 1:-1])
    torch.testing.assert_close(more(x), half(F.pad(x, (2, 2, 2, 2))))
    for padding in (0, 1, 3):  # cayley: a torus of the padded image
        zeros = build("cayley", kernel_size=3, padding=padding)
        torus = build("cayley", kernel_size=3, padding=1, padding_mode="circular")
        padded = torus(F.pad(x, 4 * (padding,)))
        torch.testing.assert_close(zeros(x), padded[..., 1:-1, 1:-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("word", WORDS)
def test_circular_operators_follow_an_image_that_is_rolled(word: str) -> None:
    conv = build(word, kernel_size=3, padding=1, stride=(1, 2), padding_mode="circular")
    x = torch.randn(2, 2, 5, 8)
    rolled = conv(x.roll((3, 4), (-2, -1)))
    torch.testing.assert_close(rolled, conv(x).roll((3, 2), (-2, -1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"padding_mode": "reflect"}, "padding_mode must be zeros or circular, got reflect"),
        ({"padding_mode": "replicate"}, "padding_mode must be zeros or circular, got replicate"),
        ({"padding_mode": "circular", "padding": (1, 2)}, r"padding must be at most .* got \(1, 2\)"),
    ],
)
def test_pixels_seen_twice_are_refused(word: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(NotImplementedError, match=said):
        build(word, kernel_size=3, **arguments)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 1, 5), (1, 2, 2, 3)], ids=str)
def test_small_and_single_images_pass(word: str, shape: tuple[int, ...]) -> None:
    for mode in ("zeros", "circular"):
        conv = build(word, kernel_size=3, padding=1, padding_mode=mode)
        y = conv(torch.randn(shape))
        assert y.shape == (*shape[:-3], 8, *shape[-2:])
        assert y.isfinite().all()


@pytest.mark.parametrize("word", WORDS)
def test_one_channel_and_one_pixel_leave_nothing_to_turn(word: str) -> None:
    conv, x = build(word, in_channels=1, out_channels=1, kernel_size=1, bias=False), torch.randn(2, 1, 3, 3)
    y = conv(x)
    torch.testing.assert_close(y, x)
    y.sum().backward()
    assert conv.weight.grad is not None and not conv.weight.grad.any()  # zero, not NaN


@pytest.mark.parametrize("word", WORDS)
def test_a_bfloat16_module_agrees_with_float32(word: str) -> None:
    conv, x = build(word, kernel_size=3, padding=1), torch.randn(2, 2, 6, 6)
    expected = conv(x)
    y = conv.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.05)
    assert conv.violation() <= conv.tolerance


@pytest.mark.parametrize("word", WORDS)
def test_violation_is_that_of_the_forward_pass(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = build(word, kernel_size=3, padding=1)
    assert conv.violation() <= conv.tolerance
    right = type(conv).isometry
    monkeypatch.setattr(type(conv), "isometry", lambda *args, **kwargs: 1.5 * right(*args, **kwargs))
    assert conv.violation().item() == pytest.approx(0.5, abs=1e-3)
