"""A convolution variant in a geometry, as the laws of tests/test_conv.py take it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

GEOMETRIES: dict[str, dict[str, Any]] = {
    "k1": {"kernel_size": 1},
    "k3": {"kernel_size": 3, "padding": 1},
    "one_channel": {"in_channels": 1, "kernel_size": 3, "padding": 1, "bias": False},
    "k5_stride2_valid": {"kernel_size": 5, "stride": 2, "padding": "valid"},
    "k4_same": {"kernel_size": 4, "padding": "same"},
    "k2x3_strides": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)},
    "dilated_same": {"kernel_size": 3, "dilation": 2, "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "wide": {"in_channels": 2, "out_channels": 22, "kernel_size": 3, "padding": 1},
    "reflect": {"kernel_size": 3, "padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"kernel_size": 3, "padding": 2, "padding_mode": "replicate", "stride": 2},
    "circular": {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
}
SIZE = (11, 10)


@dataclass
class Case:
    """A variant in a geometry; the same seed builds the same convolution."""

    variant: str
    geometry: str
    create: Callable[..., nn.Module]
    dilation: int = 1  # that the variant's YAML sets, where the geometry sets none

    @property
    def arguments(self) -> dict[str, Any]:
        return {"in_channels": 4, "out_channels": 6, "dilation": self.dilation, **GEOMETRIES[self.geometry]}

    def build(self, seed: int = 0, size: tuple[int, int] = SIZE, **changes: Any) -> Any:
        """The convolution after a dry pass over zeros, as models do: it gives lazy layers their size."""
        torch.manual_seed(seed)
        conv = self.create(**(self.arguments | changes))
        with torch.no_grad():
            zeros = torch.zeros(1, self.arguments["in_channels"], *size)
            conv.eval()(zeros.to(next(conv.parameters()).device))
        return conv.train()

    def stock(self) -> nn.Conv2d:
        return nn.Conv2d(**self.arguments)

    def input(self, examples: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
        channels = self.arguments["in_channels"]
        # Mean 1 and scale 3: no padding looks like the data, no magnitude stays in its linear part.
        return 1 + 3 * torch.randn(examples, channels, *size, generator=torch.Generator().manual_seed(1))

    def breaks(self, law: str) -> str:
        return f"{self.variant} in geometry {self.geometry} breaks the law: {law}"
