"""cnnlab: does this change to the convolution help, by how much, at what cost, and am I sure?

    command -> config -> data . model . task -> trainer -> result -> report

Each word of that line is a file of this package; `train.py` is the whole line on one page.
"""

from cnnlab.build import module
from cnnlab.registry import available, create
from cnnlab.runs.restored import load

__version__ = "0.1.0"
__all__ = ["available", "create", "load", "module"]
