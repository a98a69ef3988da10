"""What is to be predicted of an image: a class, several attributes, several values, or a chain of labels."""

import torch

from cnnlab.allowed import one_of

# What a source may say of its targets, with the plural; n is the number of its class_names.
KINDS = {
    "class": "classes",  # (N,) of 0..n-1
    "attributes": "attributes",  # (N, n) of 0 and 1
    "values": "values",  # (N, n) of finite numbers
    "chain": "chains",  # (N, length) of 0..n-1
}


def checked_targets(part: str, targets: torch.Tensor, *, kind: str, images: int, names: int) -> torch.Tensor:
    """The targets of a part as int64 (class, chain) or float32 (attributes, values); else one line says why.

    >>> checked_targets("train", torch.tensor([[True, False]]), kind="attributes", images=1, names=2)
    tensor([[1., 0.]])
    """
    one_of("targets", kind, KINDS)
    got = f"{targets.dtype} {tuple(targets.shape)}"
    if kind in ("class", "chain"):
        ndim, each = (1, "one an image") if kind == "class" else (2, "one row an image")
        shaped = targets.ndim == ndim and len(targets) == images and targets.numel()
        if not shaped or targets.is_floating_point() or targets.is_complex():
            raise ValueError(f"{part} labels must be {images} whole numbers, {each}, got {got}")
        targets = targets.long()
        if targets.min() < 0 or targets.max() >= names:
            raise ValueError(f"{part} labels must be 0..{names - 1}, got {targets.min()}..{targets.max()}")
        return targets
    if targets.is_complex() or targets.shape != (images, names):
        raise ValueError(f"{part} {kind} must be numbers ({images}, {names}), got {got}")
    targets = targets.float()
    if not targets.isfinite().all():
        raise ValueError(f"{part} {kind} must be finite, got inf or nan")
    if kind == "attributes" and not ((targets == 0) | (targets == 1)).all():
        raise ValueError(f"{part} attributes must be 0 or 1, got {targets.min():g}..{targets.max():g}")
    return targets
