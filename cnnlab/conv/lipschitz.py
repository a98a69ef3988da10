"""How much a linear operator can stretch an image."""

import math
from copy import deepcopy

import numpy as np
import torch
from torch import nn

SMALL = 8  # below so many rows or columns ARPACK has no room, and a dense matrix costs nothing


def operator_norm(conv: nn.Module, input_hw: tuple[int, int]) -> float:
    """Largest singular value of x -> conv(x) - conv(0) on images of that size: its Lipschitz constant.

    In float64, by Lanczos iterations with the operator and its transpose (scipy), so no matrix is written
    down and stride, padding and dilation are as in the forward pass; right to five digits. It holds for this
    size of image: with padding a larger one is stretched a little more.

    >>> conv = nn.Conv2d(1, 1, 3, bias=False)
    >>> _ = nn.init.constant_(conv.weight, 1 / 3)  # norm 1, but patches overlap: the limit is 3
    >>> round(operator_norm(conv, (3, 3)), 6), round(operator_norm(conv, (32, 32)), 2)
    (1.0, 2.98)
    """
    from scipy.sparse.linalg import LinearOperator, svds  # 0.2 s

    operator = deepcopy(conv).double().eval().requires_grad_(False)
    device = next((tensor.device for tensor in operator.state_dict().values()), torch.device("cpu"))
    shape = 1, int(conv.in_channels), *input_hw  # type: ignore[arg-type]
    zero = operator(torch.zeros(shape, dtype=torch.float64, device=device))
    rows, columns = zero.numel(), math.prod(shape)

    def apply(vector: np.ndarray) -> np.ndarray:
        image = torch.as_tensor(vector, device=device).reshape(shape)
        return (operator(image) - zero).flatten().cpu().numpy()

    def transpose(vector: np.ndarray) -> np.ndarray:
        image = torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)
        gradient = torch.as_tensor(vector, device=device).reshape(zero.shape)
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(operator(image), image, gradient)
        return pulled.flatten().cpu().numpy()

    if min(rows, columns) < SMALL:
        narrow, count = (apply, columns) if columns < rows else (transpose, rows)
        matrix = np.stack([narrow(unit) for unit in np.eye(count)])
        return float(np.linalg.norm(matrix, 2))
    linear = LinearOperator((rows, columns), matvec=apply, rmatvec=transpose, dtype=np.float64)
    random = np.random.default_rng(0)
    response = float(np.linalg.norm(apply(random.standard_normal(columns))))
    if response == 0 or not math.isfinite(response):  # ARPACK refuses what is 0 or has diverged
        return response
    start = random.standard_normal(min(rows, columns))
    # scipy squares `tol`. A smaller one never ends where many singular values are equal but for rounding.
    return float(svds(linear, k=1, v0=start, tol=5e-3, return_singular_vectors=False)[0])
