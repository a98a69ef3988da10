"""Columns of a parquet table as targets: what their type says they are, and their values."""

from typing import Any

import torch


def kind_of(feature: Any) -> str | None:
    """The kind of targets that a column of a type of Hugging Face's holds, None for no targets.

    Whole numbers are classes, and real ones values. A list holds attributes if it is of whole numbers or
    truths, values if of real numbers, and a chain if of class labels.

    >>> from datasets import ClassLabel, List, Value
    >>> kind_of(ClassLabel(2)), kind_of(List(ClassLabel(2))), kind_of(List(Value("int8")))
    ('class', 'chain', 'attributes')
    >>> kind_of(Value("float64")), kind_of(Value("string"))
    ('values', None)
    """
    from datasets import ClassLabel, Value

    item = getattr(feature, "feature", feature)
    listed = item is not feature
    if isinstance(item, ClassLabel):
        return "chain" if listed else "class"
    dtype = item.dtype if isinstance(item, Value) else ""
    if dtype.startswith("float"):
        return "values"
    if dtype == "bool" or (listed and dtype.startswith(("int", "uint"))):
        return "attributes"
    return "class" if dtype.startswith(("int", "uint")) else None


def read_column(column: Any, where: str) -> torch.Tensor:
    """The numbers in a pyarrow column, (N,), or (N, length) of lists.

    Raises: ValueError where some are missing, or the lists are not all of one length.
    """
    from pyarrow import compute, types

    rows = len(column)
    flat = column.combine_chunks()
    missing = flat.null_count
    if listed := not types.is_primitive(flat.type):
        lengths = compute.list_value_length(flat).drop_null().unique().to_pylist()
        if len(lengths) > 1:
            said = f"{min(lengths)} and {max(lengths)}"
            raise ValueError(f"{where}: labels must be lists of one length, got {said}")
        flat = flat.flatten()
        missing += flat.null_count
    if missing:
        raise ValueError(f"{where}: {missing} labels are missing")
    if not len(flat):
        raise ValueError(f"{where}: labels must not be empty")
    numbers = torch.tensor(flat.to_numpy(zero_copy_only=False))
    return numbers.unflatten(0, (rows, -1)) if listed else numbers
