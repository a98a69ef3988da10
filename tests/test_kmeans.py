"""KMeansConv2d patch by patch against its definition, and what fit learns."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.geometry import padded
from cnnlab.conv.kmeans import KMeansConv2d
from tests.conv_case import GEOMETRIES

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def images(channels: int = 4, count: int = 40, size: tuple[int, int] = (9, 8)) -> Tensor:
    """Smooth ones, of correlated channels."""
    noise = torch.randn(count, channels, size[0] + 2, size[1] + 2, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise + noise.mean(1, keepdim=True), 3, 1)


def triangle(conv: KMeansConv2d, x: Tensor) -> Tensor:
    """One patch, one centroid after the other, in float64."""
    x, (kh, kw), each = padded(conv, x).double(), conv.kernel_size, conv.in_channels // conv.groups
    (down, right), (sh, sw) = conv.dilation, conv.stride
    filters = conv.out_channels // conv.groups
    height = (x.shape[-2] - down * (kh - 1) - 1) // sh + 1
    width = (x.shape[-1] - right * (kw - 1) - 1) // sw + 1
    y = torch.zeros(len(x), conv.out_channels, height, width, dtype=torch.float64)
    for n in range(len(x)):
        for row in range(height):
            for column in range(width):
                for group in range(conv.groups):
                    patch = x[
                        n,
                        group * each : (group + 1) * each,
                        row * sh : row * sh + down * (kh - 1) + 1 : down,
                        column * sw : column * sw + right * (kw - 1) + 1 : right,
                    ].flatten()
                    if len(patch) > 1:
                        deviation = (patch.var(correction=0) + conv.variance_eps).sqrt()
                        patch = (patch - patch.mean()) / deviation
                    v = conv.whitening[group].double() @ (patch - conv.mean[group, :, 0].double())
                    own = slice(group * filters, (group + 1) * filters)
                    z = torch.stack([(v - c.flatten().double()).norm() for c in conv.weight[own]])
                    y[n, own, row, column] = (z.mean() - z).clamp_min(0)
    return y if conv.bias is None else y + conv.bias.view(-1, 1, 1)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_is_the_triangle_activation_patch_by_patch(geometry: str, fitted: bool) -> None:
    torch.manual_seed(0)
    conv = KMeansConv2d(**{"in_channels": 4, "out_channels": 6, **GEOMETRIES[geometry]}, patches=500)
    x = images(conv.in_channels)
    if fitted:
        conv.fit(x)
        if conv.bias is not None:
            nn.init.normal_(conv.bias)
    torch.testing.assert_close(conv(x[:2]).double(), triangle(conv, x[:2]), rtol=1e-3, atol=2e-4)


def test_whitened_patches_are_centred_and_of_unit_covariance() -> None:
    torch.manual_seed(0)
    conv = KMeansConv2d(4, 6, 3, groups=2, patches=20_000, zca_eps=1e-6, variance_eps=1e-6)
    x = images(count=400)
    conv.fit(x)
    q = F.layer_norm(F.unfold(x, 3).mT.unflatten(2, (2, 18)), (18,)).flatten(0, 1)  # (patches, groups, 18)
    for group in range(2):
        whitened = (q[:, group] - conv.mean[group].T) @ conv.whitening[group].T
        assert whitened.mean(0).abs().max() < 0.1
        torch.testing.assert_close(conv.whitening[group], conv.whitening[group].T)
        variances = torch.linalg.eigvalsh(whitened.T.cov())
        assert variances[0] < 0.01  # all ones: the patch's mean is gone
        torch.testing.assert_close(variances[1:], torch.ones(17), rtol=0.1, atol=0)


def test_centroids_are_the_means_of_what_is_nearest_to_them() -> None:
    """A fixed point of k-means, near enough, where there are three kinds of patches."""
    torch.manual_seed(0)
    kinds = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    x = (kinds[torch.arange(300) % 3] + 0.01 * torch.randn(300, 3)).view(300, 3, 1, 1)
    conv = KMeansConv2d(3, 3, 1, patches=3000)
    conv.fit(x)
    q = F.layer_norm(x.flatten(1), (3,), eps=conv.variance_eps)
    whitened = (q - conv.mean[0].T) @ conv.whitening[0].T
    for kind in range(3):
        mean = whitened[kind::3].mean(0)
        assert (conv.weight.flatten(1) - mean).norm(dim=1).min() < 0.05
    winners = conv(x)[..., 0, 0].argmax(1)
    assert len(set(winners[:3].tolist())) == 3
    assert torch.equal(winners, winners[:3].repeat(100))


def test_contrast_and_brightness_do_not_matter() -> None:
    torch.manual_seed(0)
    conv = KMeansConv2d(4, 6, 3, variance_eps=1e-6, patches=500)
    x = images()
    conv.fit(x)
    torch.testing.assert_close(conv(5 * x + 3), conv(x), rtol=1e-3, atol=1e-3)


def test_the_seed_decides_what_fit_learns_and_a_state_dict_restores_it() -> None:
    x, convs = images(), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        convs.append(KMeansConv2d(4, 6, 3, patches=500))
        convs[-1].fit(x)
    first, same, other = convs
    assert torch.equal(first(x), same(x))
    assert not torch.equal(first(x), other(x))
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(x), first(x))


@pytest.mark.parametrize("arguments", [{}, {"kernel_size": 1}, {"kernel_size": 1, "in_channels": 1}])
def test_constant_images_and_few_distinct_patches_do_no_harm(arguments: dict) -> None:
    torch.manual_seed(0)
    conv = KMeansConv2d(
        **{"in_channels": 4, "out_channels": 16, "kernel_size": 3, "patches": 100} | arguments
    )
    constant = torch.full((5, conv.in_channels, 6, 6), 7.0)
    conv.fit(constant)
    x = torch.randn(2, conv.in_channels, 6, 6, requires_grad=True)
    for batch in (constant, x):
        y = conv(batch)
        assert y.isfinite().all()
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_a_patch_of_one_value_is_told_from_others() -> None:
    torch.manual_seed(0)
    conv = KMeansConv2d(1, 4, 1, patches=1000, bias=False)
    x = torch.tensor([-3.0, -1.0, 1.0, 3.0]).repeat(50).view(50, 1, 2, 2)
    conv.fit(x)
    winners = conv(x[:1]).argmax(1).flatten().tolist()
    assert sorted(winners) == [0, 1, 2, 3]


def test_images_smaller_than_the_kernel_are_fitted_with_their_padding() -> None:
    torch.manual_seed(0)
    conv = KMeansConv2d(4, 6, 5, padding=2, patches=200)
    conv.fit(images(size=(2, 2)))
    assert conv(images(size=(2, 2))).isfinite().all()


def test_it_runs_in_pure_bf16() -> None:
    torch.manual_seed(0)
    conv, x = KMeansConv2d(4, 6, 3, patches=500), images()
    conv.fit(x)
    exact, rounded = conv(x), conv.bfloat16()(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().max() < 0.1 * exact.max()


def test_one_filter_in_a_group_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="out_channels must be > groups, got 4 and 4"):
        KMeansConv2d(4, 4, 3, groups=4)


@pytest.mark.parametrize(
    ("knob", "value", "allowed"),
    [
        ("patches", 5, "a whole number >= 6, got 5"),
        ("variance_eps", 0, "a number > 0, got 0"),
        ("zca_eps", float("inf"), "finite, got inf"),
    ],
)
def test_a_knob_out_of_range_is_refused(knob: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{knob} must be {allowed}"):
        KMeansConv2d(4, 6, 3, **{knob: value})


def test_whitening_adds_zca_eps_to_every_variance() -> None:
    conv = KMeansConv2d(1, 2, (1, 2), patches=4000, zca_eps=0.1, variance_eps=0.5)
    torch.manual_seed(0)
    conv.fit(torch.randn(50, 1, 6, 6))
    patches = conv._contrast(torch.randn(1, 2, 20000))[0]  # (a, -a): variance 0 along (1, 1)
    spread = patches[0].var() * 2
    expected = [(spread + 0.1) ** -0.5, 0.1**-0.5]  # along (1, -1) / sqrt 2 and (1, 1) / sqrt 2
    whitening = conv.whitening[0]
    found = [whitening[0, 0] - whitening[0, 1], whitening[0, 0] + whitening[0, 1]]
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected), rtol=0.03, atol=0)
