"""What a source promises, held against what it gives: one line says what was expected of it."""

import warnings
from typing import Any

import numpy as np
import torch


def pair(what: str, expected: str, given: Any) -> tuple[Any, Any]:
    """
    >>> pair("train", "(images, labels)", (1, 2, 3))
    Traceback (most recent call last):
    ValueError: train must be (images, labels), got a tuple of 3
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        got = type(given).__name__ + (f" of {len(given)}" if hasattr(given, "__len__") else "")
        raise ValueError(f"{what} must be {expected}, got a {got}")
    first, second = given
    return first, second


def parts(given: Any) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Train and test, each images and labels, of what `load()` returned."""
    train, test = pair("what load() returns", "(train, test)", given)
    expected = "(images, labels)"
    return pair("train", expected, train), None if test is None else pair("test", f"{expected} or None", test)


def class_names(source: Any) -> list[str]:
    names = getattr(source, "class_names", None)
    if names is None or not hasattr(names, "__len__"):
        raise ValueError(f"class_names must be a list of names, got {names!r}")
    return [str(name) for name in names]


def superclasses(source: Any, classes: int) -> list[int] | None:
    given = getattr(source, "superclasses", None)
    if given is None:
        return None
    numbers = np.asarray(given)
    if numbers.dtype.kind not in "iu" or numbers.shape != (classes,):
        raise ValueError(f"superclasses must be {classes} whole numbers, one a class, got {given!r}")
    return [int(number) for number in numbers]


def tensor(what: str, array: Any) -> torch.Tensor:
    """Numbers of any library as a tensor, without a copy where that can be.

    >>> tensor("train labels", ["cat", "dog"])
    Traceback (most recent call last):
    ValueError: train labels must be numbers, got <U3 (2,)
    """
    if isinstance(array, torch.Tensor):
        return array
    try:
        array = np.asarray(array)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{what} must be of one shape: {error}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what} must be numbers, got {array.dtype} {array.shape}")
    native = np.require(array, array.dtype.newbyteorder("="), "C")
    with warnings.catch_warnings(action="ignore"):  # where the array is not to be written to: nobody does
        return torch.as_tensor(native)
