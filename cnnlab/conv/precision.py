"""What must not be rounded: weights, norms and angles are made in full precision, under autocast too."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """In float32; float64 stays.

    >>> wide(torch.ones(1, dtype=torch.bfloat16)).dtype, wide(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Autocast off on the tensor's device."""
    device = tensor.device.type
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)
