"""Preprocessing along the principal axes of the training images: fewer of them, or all with variance 1."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cnnlab.allowed import finite, one_of, whole
from cnnlab.conv.precision import full_precision, wide
from cnnlab.data.preprocessing import allocate, check_shape, width

MOST_VALUES = 8192  # of an image: beyond, the covariance takes gigabytes and its axes hours
CHUNK = 1024  # images: the products of as many pixels within +-128 add up to 2**24 at most


class Principal(NamedTuple):
    """What images vary about and along."""

    mean: Tensor  # (C, H, W)
    variances: Tensor  # (C*H*W,), the largest first
    axes: Tensor  # (C*H*W, C*H*W), orthonormal columns


def principal(images: Tensor) -> Principal:
    """Mean, variances (over N, not N - 1) and principal axes of uint8 images, in float64.

    Sums of whole numbers are exact in float32 as long as they stay within 2**24, so the covariance is that of
    exact arithmetic, rounded once. An axis points where its largest coordinate is positive.

    Raises: ValueError where an image has more than MOST_VALUES values.

    >>> mean, variances, axes = principal(torch.tensor([[[[0, 0]]], [[[4, 3]]]], dtype=torch.uint8))
    >>> mean.tolist(), variances.tolist()  # half the distance 5, squared
    ([[[2.0, 1.5]]], [6.25, 0.0])
    >>> axes[:, 0].numpy().round(12)
    array([0.8, 0.6])
    """
    n, values = len(images), math.prod(images.shape[1:])
    if values > MOST_VALUES:
        raise ValueError(f"images must have at most {MOST_VALUES} values for a covariance, got {values}")
    total = torch.zeros(values, dtype=torch.float64, device=images.device)
    products = torch.zeros(values, values, dtype=torch.float64, device=images.device)
    for chunk in images.split(CHUNK):
        pixels = chunk.flatten(1).float().sub(128)
        total += pixels.sum(0)
        products += pixels.T @ pixels
    covariance = (n * products - torch.outer(total, total)) / n**2
    variances, axes = torch.linalg.eigh(covariance)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    mean = (total / n + 128).view(images.shape[1:])
    return Principal(mean, variances.flip(0).clamp(min=0), (axes * largest.sign()).flip(1))


class PCA(nn.Module):
    """Images reduced to their principal components, seen as images again.

    V V^T (x - mean) / (high - low), with the first `components` principal axes of the training images as the
    columns of V; a fraction below 1 asks for as many as have that share of the variance. The reduced
    coordinates are V^T (x - mean): seen as images, any network takes them, and nothing else is in them.

    Source: Pearson 1901; CS231n, "Data preprocessing".
    Shape: (N, C, H, W) any dtype, all of the training images' shape -> the same in float32.
    Raises: ValueError where components is neither 1..C*H*W nor a fraction, and for images of another shape.

    >>> images = torch.tensor([[[[0, 0]]], [[[4, 3]]], [[[8, 6]]], [[[4, 3]]]], dtype=torch.uint8)
    >>> pca = PCA(components=1).fit(images)
    >>> pca(images[:1]) * 8  # on the axis nothing is lost: (0, 0) - (4, 3)
    tensor([[[[-4., -3.]]]])
    >>> pca(torch.tensor([[[[7, -1]]]])) * 8  # (3, -4) off the mean is across the axis
    tensor([[[[0., 0.]]]])
    """

    mean: Tensor
    width: Tensor
    axes: Tensor

    def __init__(self, *, components: int | float = 0.99) -> None:
        super().__init__()
        if not (isinstance(components, float) and 0 < components < 1):
            what = "components must be a whole number >= 1 or a fraction between 0 and 1"
            if isinstance(components, bool) or not isinstance(components, int) or components < 1:
                raise ValueError(f"{what}, got {components!r}")
        self.components = components
        self.register_buffer("mean", torch.full((1, 1, 1), torch.nan))
        self.register_buffer("width", torch.tensor(torch.nan))
        self.register_buffer("axes", torch.full((1, 1), torch.nan))  # (C*H*W, components)
        self.register_load_state_dict_pre_hook(allocate)

    def fit(self, images: Tensor) -> "PCA":
        mean, variances, axes = principal(images)
        if isinstance(self.components, int):
            kept = whole("components", self.components, at_least=1, at_most=len(variances))
        else:
            share = variances.cumsum(0) / variances.sum()
            kept = int((share < self.components).sum()) + 1
        self.mean, self.axes = mean.to(self.mean), axes[:, :kept].to(self.axes)
        self.width.fill_(width(images))
        return self

    def forward(self, images: Tensor) -> Tensor:
        check_shape(images, self.mean)
        centred = images.float().sub(self.mean).div(self.width).flatten(1)
        axes = wide(self.axes)
        with full_precision(centred):
            return (centred @ axes @ axes.T).view(images.shape)


class Whiten(nn.Module):
    """Pixels without correlation: each principal component scaled to variance 1.

    z = diag(1 / sqrt(variance + eps)) V^T (x - mean), with the principal axes V of the training images on
    the scale of unit_range. kind=zca turns z back into an image, V z: of all whitened images the nearest to
    the original. kind=pca leaves z as it is, in the order of the variances: no image, so nothing for a
    convolution. eps keeps the noise of directions with hardly any variance from being blown up.

    Source: Bell & Sejnowski 1997 (ZCA); CS231n, "Data preprocessing".
    Shape: (N, C, H, W) any dtype, all of the training images' shape -> the same in float32.
    Raises: ValueError where kind is not zca or pca or eps not a number > 0, and for images of another shape.

    >>> images = torch.tensor([[[[0, 0]]], [[[0, 2]]], [[[8, 0]]], [[[8, 2]]]], dtype=torch.uint8)
    >>> Whiten(eps=1e-12).fit(images)(images).flatten(1)  # standard deviations 4 and 1, uncorrelated
    tensor([[-1., -1.],
            [-1.,  1.],
            [ 1., -1.],
            [ 1.,  1.]])
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, *, kind: Literal["zca", "pca"] = "zca", eps: float = 0.01) -> None:
        super().__init__()
        self.kind = one_of("kind", kind, ("zca", "pca"))
        self.eps = finite("eps", eps, above=0)
        self.register_buffer("mean", torch.full((1, 1, 1), torch.nan))
        self.register_buffer("matrix", torch.full((1, 1), torch.nan))  # (C*H*W, C*H*W)
        self.register_load_state_dict_pre_hook(allocate)

    def fit(self, images: Tensor) -> "Whiten":
        mean, variances, axes = principal(images)
        scale = width(images).double()
        matrix = axes / (variances + self.eps * scale**2).sqrt()
        if self.kind == "zca":
            matrix = matrix @ axes.T
        self.mean, self.matrix = mean.to(self.mean), matrix.to(self.matrix)
        return self

    def forward(self, images: Tensor) -> Tensor:
        check_shape(images, self.mean)
        centred = images.float().sub(self.mean).flatten(1)
        with full_precision(centred):
            return (centred @ wide(self.matrix)).view(images.shape)
