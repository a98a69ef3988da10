"""What must not be rounded: weights, norms and angles are made in full precision, under autocast too."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Autocast off on the tensor's device."""
    device = tensor.device.type
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)
