"""Features learnt without labels: how much nearer than usual a patch is to each of many typical patches."""

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import finite, whole
from cnnlab.conv.geometry import PaddingMode, output_hw, padded
from cnnlab.conv.precision import full_precision, wide


class KMeansConv2d(nn.Conv2d):
    """Distances from whitened patches to k-means centroids, by the triangle activation.

    y_k = max(0, mean_j(z_j) - z_k) + b_k,  z_k = |v - c_k|,  v = P (q - m),
    q = (p - mean(p)) / sqrt(var(p) + variance_eps),  p a patch.
    `fit` draws `patches` patches from images and computes m, the mean of their q; the ZCA whitening
    P = U (D + zca_eps)^(-1/2) U^T from their covariance U D U^T; the centroids c (`weight`) of their v. Until
    then P = I, m = 0, and the centroids are random unit vectors. All three are frozen; b starts at 0 and is
    trained. Each group has a whitening of its own, and its own centroids to average over.

    Source: Coates, Ng & Lee 2011, An analysis of single-layer networks in unsupervised feature learning.
    Differs: the paper has no bias. Its variance_eps is 10 for pixels of 0 to 255; 0.0025 is the same for
    pixels divided by their standard deviation, about 63 in natural images. A patch of a single value
    has no contrast to normalise: there q = p. Patches are drawn wherever the convolution looks, so some
    reach into the padding.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    Raises: NotImplementedError for a single filter in a group: its distance is the mean, and y is 0.

    >>> conv = KMeansConv2d(1, 2, (1, 2), bias=False, variance_eps=3.0)
    >>> conv.weight.data = torch.tensor([[-0.5, 3.5], [3.5, 3.5]]).view(2, 1, 1, 2)
    >>> conv(torch.tensor([[[[1.0, 3.0]]]]))[0, :, 0, 0]  # q = (-1, 1) / 2, z = (3, 5)
    tensor([1., 0.])
    """

    linear = False
    equivariant = True
    is_convolution = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        patches: int = 50_000,
        variance_eps: float = 0.0025,
        zca_eps: float = 0.1,
    ) -> None:
        if out_channels == groups:
            raise NotImplementedError(
                f"KMeansConv2d: out_channels must be > groups, got {out_channels} and {groups}"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.patches = whole("patches", patches, at_least=out_channels // groups)
        self.variance_eps = finite("variance_eps", variance_eps, above=0)
        self.zca_eps = finite("zca_eps", zca_eps, above=0)
        size = self.weight[0].numel()
        self.mean = nn.Parameter(torch.empty(groups, size, 1), requires_grad=False)
        self.whitening = nn.Parameter(torch.empty(groups, size, size), requires_grad=False)
        self.weight.requires_grad_(False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        if "whitening" not in self._parameters:  # nn.Conv2d's constructor calls this too early
            return
        nn.init.normal_(self.weight)
        self.weight.div_(self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        nn.init.zeros_(self.mean)
        self.whitening.copy_(torch.eye(self.whitening.shape[-1]))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(padded(self, x), self.kernel_size, self.dilation, stride=self.stride)
        with full_precision(x):
            contrast = self._contrast(patches.unflatten(-2, (self.groups, -1))) - self.mean
        whitened = self.whitening @ contrast.to(self.whitening.dtype)  # (N, groups, fan_in, H'*W')
        centroids = self.weight.flatten(1).unflatten(0, (self.groups, -1))
        products = centroids @ whitened  # (N, groups, out/groups, H'*W')
        with full_precision(x):
            lengths = wide(whitened).square().sum(-2, keepdim=True)
            squares = lengths - 2 * wide(products) + wide(centroids).square().sum(-1, keepdim=True)
            z = squares.clamp_min(torch.finfo(squares.dtype).eps).sqrt()  # rounding may make a zero negative
            y = (z.mean(-2, keepdim=True) - z).relu()
            y = y.flatten(-3, -2).unflatten(-1, output_hw(self, (x.shape[-2], x.shape[-1])))
            if self.bias is not None:
                y = y + self.bias.view(-1, 1, 1)
        return y.to(products.dtype)

    def _contrast(self, patches: Tensor) -> Tensor:
        """q, the patch without its mean and contrast: (..., fan_in, positions) in and out."""
        patches = wide(patches)
        if patches.shape[-2] == 1:
            return patches
        centred = patches - patches.mean(-2, keepdim=True)
        return centred * (centred.square().mean(-2, keepdim=True) + self.variance_eps).rsqrt()

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Learn whitening and centroids from what enters the layer: x (N, in, H, W)."""
        filters = self.weight.flatten(1).unflatten(0, (self.groups, -1))
        drawn = self._contrast(self._draw(x)).cpu()  # (groups, fan_in, patches)
        for group, patches in enumerate(drawn):
            mean = patches.mean(1, keepdim=True)
            covariance = (patches - mean).cov(correction=0).double().view(len(mean), -1)
            variances, directions = torch.linalg.eigh(covariance)
            scales = (variances.clamp_min(0) + self.zca_eps).rsqrt()
            whitening = (directions * scales @ directions.T).to(patches.dtype)
            self.mean[group].copy_(mean)
            self.whitening[group].copy_(whitening)
            filters[group].copy_(k_means(whitening @ (patches - mean), len(filters[group])))

    def _draw(self, x: Tensor) -> Tensor:
        """Random patches of the padded images, the same for every group: (groups, fan_in, patches)."""
        rows, columns = output_hw(self, (x.shape[-2], x.shape[-1]))
        x = padded(self, x).permute(0, 2, 3, 1)  # (N, H, W, in)
        image, row, column = (torch.randint(count, (self.patches, 1, 1)) for count in (len(x), rows, columns))
        down, right = (
            torch.arange(kernel) * dilation
            for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)
        )
        row = row * self.stride[0] + down.view(-1, 1)  # (patches, kh, 1)
        column = column * self.stride[1] + right  # (patches, 1, kw)
        drawn = x[image.to(x.device), row.to(x.device), column.to(x.device)]  # (patches, kh, kw, in)
        return drawn.permute(3, 1, 2, 0).flatten(0, 2).unflatten(0, (self.groups, -1))

    def macs(self, input_hw: tuple[int, int]) -> int:
        """Multiply-accumulates of whitening each patch and comparing it with the centroids, for one image."""
        size = self.weight[0].numel()
        return math.prod(output_hw(self, input_hw)) * size * (self.groups * size + self.out_channels)


def k_means(vectors: Tensor, count: int) -> Tensor:
    """Centroids of columns by k-means, (fan_in, samples) -> (count, fan_in); seeded by torch's generator."""
    from sklearn.cluster import KMeans  # 1 s
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # From random patches: k-means++ takes ten times as long for no better centroids.
    seed = int(torch.randint(2**31 - 1, ()))
    kmeans = KMeans(count, init="random", n_init=1, max_iter=30, random_state=seed)
    # One thread: several would add in the order in which they finish, and the bits would differ.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct patches than centroids
        kmeans.fit(vectors.T.contiguous().float().numpy())
    return torch.from_numpy(kmeans.cluster_centers_)
