"""Pickles of arrays, read by an unpickler that builds nothing else: a data set can't run code."""

import io
import pickle
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]  # NumPy's own, under whatever name this version has it

# All that pickled arrays name, under NumPy 1's and 2's names; `encode` is for the bytes of Python 2's.
ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}


class ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays are admitted") from None


def arrays(data: bytes) -> Any:
    """The plain containers, numbers, bytes and numpy arrays of a pickle; Python 2's strings stay bytes.

    Raises: ValueError where it is not a whole pickle, or holds anything else.

    >>> arrays(pickle.dumps({b"labels": [1, 2], b"data": np.arange(3)}))
    {b'labels': [1, 2], b'data': array([0, 1, 2])}
    >>> arrays(pickle.dumps(print))
    Traceback (most recent call last):
    ValueError: it names builtins.print, and only arrays are admitted
    """
    try:
        return ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(" ".join(str(error).split()) or "not a whole pickle") from error
