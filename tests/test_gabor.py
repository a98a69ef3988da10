"""The bank of Gabor functions: the formula point by point, what it covers, and how loud it is."""

import math

import pytest
import torch
from torch import nn

from cnnlab.conv.gabor import GaborConv2d


def test_the_kernel_is_the_formula_point_by_point() -> None:
    torch.manual_seed(0)
    conv = GaborConv2d(2, 3, (4, 5), trainable=True)
    with torch.no_grad():
        conv.functions.add_(torch.randn(7, 3) / 3)
    for o in range(3):
        log_bx, log_by, f, phi, t, x0, y0 = conv.functions[:, o].tolist()
        for i in range(2):
            a = conv.amplitude[o, i].item()
            for row in range(4):
                for column in range(5):
                    x, y = column - 2.0 - x0, row - 1.5 - y0
                    across, along = (
                        x * math.cos(t) + y * math.sin(t),
                        y * math.cos(t) - x * math.sin(t),
                    )
                    bell = math.exp(-math.exp(log_bx) * across**2 - math.exp(log_by) * along**2)
                    expected = a * bell * math.cos(f * across + phi)
                    assert conv.weight[o, i, row, column].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("count", "groups"), [(16, 1), (64, 1), (48, 3)])
def test_every_group_covers_orientations_wavelengths_and_phases_evenly(count: int, groups: int) -> None:
    conv = GaborConv2d(6, count, 7, groups=groups)
    n = count // groups
    for bank in conv.functions.unflatten(1, (groups, n)).unbind(1):
        log_bx, log_by, frequency, phase, angle, x0, y0 = bank
        torch.testing.assert_close(angle, math.pi * torch.arange(n) / n)
        height = (2 * math.pi / frequency / 3).log() / math.log(14 / 3)  # 0 at 3 pixels, 1 at 14
        for value in (height, phase / (2 * math.pi)):
            assert ((value >= 0) & (value < 1)).all()
            gaps = torch.cat([torch.zeros(1), value.sort().values, torch.ones(1)]).diff()
            assert gaps.max() < 2.5 / n
        assert not (x0.any() or y0.any())
        torch.testing.assert_close((0.5 / log_bx.exp()).sqrt(), torch.full((n,), 7 / 4))
        torch.testing.assert_close((0.5 / log_by.exp()).sqrt(), torch.full((n,), 7 / 3))


def test_the_angle_is_the_direction_across_the_stripes() -> None:
    conv = GaborConv2d(1, 4, 9)  # 0, 45, 90 and 135 degrees
    for kernel, (right, down) in zip(conv.weight[:, 0], [(1, 0), (1, 1), (0, 1), (-1, 1)], strict=True):
        spectrum = torch.fft.fft2(kernel - kernel.mean(), s=(64, 64)).abs()
        row, column = divmod(int(spectrum.argmax()), 64)
        row, column = (index - 64 if index > 32 else index for index in (row, column))
        cosine = abs(column * right + row * down) / (math.hypot(row, column) * math.hypot(right, down))
        assert cosine > 0.97


@pytest.mark.parametrize("kernel_size", [1, 2, 3, (1, 7), 11])
@pytest.mark.parametrize("filters", [1, 5, 64])
def test_white_noise_keeps_its_power(kernel_size, filters: int) -> None:
    torch.manual_seed(0)
    conv = GaborConv2d(4, filters, kernel_size, bias=False, groups=1)
    norms = conv.weight.flatten(1).square().sum(1)
    assert norms.mean() == pytest.approx(1, rel=1e-4)
    assert norms.max() < 4


def test_eight_layers_deep_signals_neither_die_nor_blow_up() -> None:
    torch.manual_seed(0)
    layers = [GaborConv2d(3 if not i else 64, 64, 3, padding="same") for i in range(8)]
    x = torch.randn(4, 3, 16, 16)
    for layer in layers:
        x = layer(x).relu()
        assert 0.1 < x.square().mean() < 10


def test_the_seed_draws_the_amplitudes_and_the_bias() -> None:
    convs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        convs.append(GaborConv2d(3, 8, 5))
    first, same, other = convs
    assert torch.equal(first.weight, same.weight) and torch.equal(first.bias, same.bias)
    assert not torch.equal(first.amplitude, other.amplitude)
    assert torch.equal(first.functions, other.functions)
    assert first.bias.abs().max() <= 75**-0.5


def test_training_finds_a_gabor_function_again() -> None:
    torch.manual_seed(0)
    target, conv = (GaborConv2d(1, 1, 7, trainable=True, bias=False) for _ in range(2))
    with torch.no_grad():
        target.functions.add_(torch.tensor([[0.3, -0.2, 0.2, 0.5, 0.4, 0.3, -0.3]]).T)
        conv.amplitude.copy_(target.amplitude)
    optimizer = torch.optim.Adam(conv.parameters(), lr=0.02)
    losses = []
    for _ in range(400):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(conv.weight, target.weight.detach())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_trainable_must_be_true_or_false() -> None:
    with pytest.raises(ValueError, match="trainable must be true or false, got 1"):
        GaborConv2d(1, 1, 3, trainable=1)
