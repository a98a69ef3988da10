"""What convolutions that keep an image's norm share: the frame in which a strided one has no stride."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.geometry import PaddingMode, output_hw
from cnnlab.conv.lipschitz import operator_norm
from cnnlab.conv.precision import full_precision, wide

GRID = 6  # pixels on a side of the torus on which violation() looks at the operator


def to_blocks(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Space to depth: the pixels of every stride x stride block become channels; norms stay as they are.

    Shape: (N, C, H, W) -> (N, C * h * w, H / h, W / w), stride = (h, w).

    >>> to_blocks(torch.arange(8.0).view(1, 1, 2, 4), (2, 2)).flatten(2)
    tensor([[[0., 2.],
             [1., 3.],
             [4., 6.],
             [5., 7.]]])
    """
    x = x.unflatten(-1, (-1, stride[1])).unflatten(-3, (-1, stride[0]))  # (N, C, H/h, h, W/w, w)
    return x.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


class IsometricConv2d(nn.Conv2d, ABC):
    """Constructor and forward pass of convolutions that keep an image's norm; a subclass gives `isometry`.

    The image is cut into blocks of stride x stride pixels. On blocks nn.Conv2d's strided convolution has no
    stride; the subclass makes from its kernel a norm-preserving map of blocks, whose outputs lie where those
    of nn.Conv2d do. `weight` has nn.Conv2d's shape, but generates the operator: no kernel of that size is it.
    |y - bias| = |x| needs room, in * stride^2 <= out (else the rows are orthonormal: channels are lost), and
    padding = dilation (kernel_size - 1) / 2, or "same" (with less the border of the output is cut off, with
    more there are zeros around the image).

    Raises: NotImplementedError for padding_mode=reflect and replicate, and for circular padding beyond half
    the kernel: pixels that are seen twice stretch an image.
    """

    linear = True
    equivariant = True
    is_convolution = False
    lipschitz = operator_norm
    keeps_zeros: ClassVar[bool]  # whether it preserves the norm within a frame of zeros, not on a torus alone

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
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        if padding_mode not in ("zeros", "circular"):
            raise NotImplementedError(
                f"padding_mode must be zeros or circular, got {padding_mode}: a pixel seen twice stretches"
            )
        circular = padding_mode == "circular"
        outer, first, radius, around = [], [], [], []
        left, _, top, _ = self._reversed_padding_repeated_twice
        for padded, kernel, step, dilated in zip(
            (top, left), self.kernel_size, self.stride, self.dilation, strict=True
        ):
            span = dilated * (kernel - 1)
            if circular and 2 * padded > span:
                raise NotImplementedError(
                    f"padding must be at most dilation * (kernel_size - 1) / 2 with padding_mode=circular, "
                    f"got {padding}: a pixel seen twice stretches"
                )
            zeros = max(0, padded - span // 2 if self.keeps_zeros or circular else padded)
            lowest, highest = (zeros - padded) // step, (zeros - padded + span) // step  # taps, in blocks
            centre = int((lowest + highest) / 2)
            reach = max(centre - lowest, highest - centre)
            before = zeros - padded - step * (centre - reach)
            outer.append(zeros)
            first.append(centre)
            radius.append(reach)
            around.append((before, step * (2 * reach + 1) - before - span - 1))
        self.outer = tuple(outer)  # zeros on each side of the image, in pixels
        self.first = tuple(first)  # which block is the output's first
        self.radius = tuple(radius)  # of the kernel on blocks
        self.around = (*around[1], *around[0])  # zeros around the kernel that fill its blocks

    @abstractmethod
    def isometry(self, blocks: Tensor, kernel: Tensor, circular: bool) -> Tensor:
        """Norm-preserving map (N, in h w, H, W) -> (N, out, H, W) made from a kernel on blocks.

        With `circular` it is to be that of a torus, whatever the padding mode.
        """

    def blocks_hw(self, input_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the frame in blocks."""
        height, width = (
            -(-(size + 2 * zeros) // step)
            for size, zeros, step in zip(input_hw, self.outer, self.stride, strict=True)
        )
        return height, width

    def _kernel(self) -> Tensor:
        """The weight on blocks: (out, in / groups * h * w, 2 radius + 1, 2 radius + 1), at least float32."""
        weight = wide(self.weight)
        size = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        dilated = weight.new_zeros(*weight.shape[:2], *size)
        dilated[..., :: self.dilation[0], :: self.dilation[1]] = weight
        return to_blocks(F.pad(dilated, self.around), self.stride)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self(x.unsqueeze(0)).squeeze(0)
        hw = x.shape[-2], x.shape[-1]
        (top, left), (height, width) = self.outer, self.blocks_hw(hw)
        bottom, right = height * self.stride[0] - hw[0] - top, width * self.stride[1] - hw[1] - left
        blocks = to_blocks(F.pad(x, (left, right, top, bottom)), self.stride)
        with full_precision(x):
            kernel = self._kernel()
        y = self.isometry(blocks, kernel, self.padding_mode == "circular")
        for dim, start, length in zip((-2, -1), self.first, output_hw(self, hw), strict=True):
            y = y.narrow(dim, start, length)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, 1, 1)

    @torch.no_grad()
    def violation(self) -> Tensor:
        """Largest distance from 1 of a singular value of the operator on a small torus of blocks.

        There each frequency has a matrix of its own, (out, in h w), of which the min(in h w, out) singular
        values are meant.
        """
        with full_precision(self.weight):
            kernel = self._kernel()
            height, width = (max(GRID, radius) for radius in self.radius)
            unit = torch.eye(kernel.shape[1] * self.groups, dtype=kernel.dtype, device=kernel.device)
            impulses = F.pad(unit[..., None, None], (0, width - 1, 0, height - 1))
            responses = torch.fft.rfft2(self.isometry(impulses, kernel, circular=True))
            matrices = responses.permute(2, 3, 0, 1)  # (frequencies, in h w, out)
            if matrices.shape[-2] > matrices.shape[-1]:
                matrices = matrices.mH
            squares = torch.linalg.eigvalsh(matrices @ matrices.mH)
            return (squares.clamp_min(0).sqrt() - 1).abs().max()
