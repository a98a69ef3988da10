"""The matrix product written out, against loops over every number."""

import itertools

import torch
from torch.nn import functional as F

from cnnlab.conv.im2col import Im2ColConv2d


def test_it_is_the_sum_over_every_tap() -> None:
    torch.manual_seed(0)
    conv = Im2ColConv2d(4, 6, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    y, image = conv(x), F.pad(x, (2, 2, 1, 1))
    expected = torch.zeros_like(y)
    for n, f, i, j in itertools.product(*map(range, y.shape)):
        expected[n, f, i, j] = conv.bias[f]
        for c, m, k in itertools.product(range(2), range(2), range(3)):
            pixel = image[n, 2 * (f // 3) + c, 2 * i + m, j + 2 * k]  # group f // 3 sees two channels
            expected[n, f, i, j] += conv.weight[f, c, m, k] * pixel
    torch.testing.assert_close(y, expected)


def test_a_single_image_needs_no_batch() -> None:
    conv, x = Im2ColConv2d(3, 4, 3, padding="same", padding_mode="circular"), torch.randn(3, 5, 4)
    torch.testing.assert_close(conv(x), conv(x.unsqueeze(0))[0])


def test_bf16_stays_bf16_with_a_bias() -> None:
    conv, x = Im2ColConv2d(3, 4, 3), torch.randn(2, 3, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
