import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.pooling import L2Pool2d

WORDS = cnnlab.available("pooling")
SIZES = {  # of a 7x10 map
    "max": (3, 5),
    "overlapping_max": (3, 5),
    "average": (3, 5),
    "l2": (3, 5),
    "global_average": (1, 1),
    "adaptive": (2, 2),
    "cross_channel": (7, 10),
    "none": (7, 10),
}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 6, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("word", WORDS)
def test_the_map_has_its_size_and_expansion_its_channels(word, images):
    pooling = cnnlab.create("pooling", word)
    assert pooling(images).shape == (2, 6 * getattr(pooling, "expansion", 1), *SIZES[word])


@pytest.mark.parametrize("word", WORDS)
def test_gradients_agree_with_finite_differences(word, images):
    assert torch.autograd.gradcheck(cnnlab.create("pooling", word), images[:1, :2].requires_grad_())


@pytest.mark.parametrize("word", WORDS)
def test_channels_last_stays_and_changes_nothing(word, images):
    pooling = cnnlab.create("pooling", word)
    last = pooling(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, pooling(images))


@pytest.mark.parametrize("word", WORDS)
def test_the_type_stays(word, images):
    assert cnnlab.create("pooling", word)(images.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("max", [[5.0]]),
        ("overlapping_max", [[8.0]]),
        ("average", [[3.0]]),  # 1, 2, 4, 5
        ("l2", [[46**0.5]]),
        ("global_average", [[4.0]]),
        ("adaptive", [[5.0, 5.0], [7.0, 8.0]]),  # the middle row and column belong to both halves
        ("none", [[1.0, 2.0, 3.0], [4.0, 5.0, 0.0], [6.0, 7.0, 8.0]]),
    ],
)
def test_value_on_a_3x3_map(word, values):
    image = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 0.0], [6.0, 7.0, 8.0]]]], dtype=torch.float64)
    torch.testing.assert_close(
        cnnlab.create("pooling", word)(image), torch.tensor([[values]], dtype=torch.float64)
    )


def test_cross_channel_takes_the_largest_of_neighbouring_channels(images):
    slow = torch.stack([images[:, 3 * i : 3 * i + 3].amax(1) for i in range(2)], dim=1)
    assert torch.equal(cnnlab.create("pooling", "cross_channel", k=3)(images), slow)


@pytest.mark.parametrize("word", ["max", "overlapping_max", "average", "l2"])
def test_a_window_that_does_not_fit_is_an_error(word):
    with pytest.raises(RuntimeError, match="Output size is too small"):
        cnnlab.create("pooling", word)(torch.zeros(1, 1, 1, 1))


# l2


@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 2), (2, 1), (1, 1), (3, 5)])
def test_l2_is_the_norm_of_every_window(kernel_size, stride, images):
    windows = images.unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)
    slow = torch.linalg.vector_norm(windows, dim=(4, 5))
    torch.testing.assert_close(L2Pool2d(kernel_size=kernel_size, stride=stride)(images), slow)
    torch.testing.assert_close(slow, nn.LPPool2d(2, kernel_size, stride)(images))


def test_l2_has_a_gradient_at_zeros():
    zeros = torch.zeros(1, 1, 2, 4)
    zeros[..., 2] = 3.0
    L2Pool2d()(zeros.requires_grad_()).sum().backward()
    torch.testing.assert_close(zeros.grad, torch.tensor([[[[0.0, 0.0, 0.5**0.5, 0.0]] * 2]]))


def test_l2_is_computed_in_float32():
    sixteen = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)  # its square is inf
    assert L2Pool2d()(sixteen).item() == 600
    with torch.autocast("cpu", torch.bfloat16):
        assert L2Pool2d()(torch.tensor([[[[3.0, 4.0], [0.0, 1.0]]]])).item() == pytest.approx(
            26**0.5, rel=1e-6
        )


@pytest.mark.parametrize("knob", ["kernel_size", "stride"])
def test_l2_names_the_knob_that_is_out_of_range(knob):
    with pytest.raises(ValueError, match=f"^{knob} must be a whole number >= 1, got 0$"):
        L2Pool2d(**{knob: 0})
