"""Measurements as text: aligned on a terminal, set off by tabs elsewhere; alone or against earlier ones."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from cnnlab.bench.measurement import Measurement, Quartiles, Table

# Column -> width; the variant has what is left of the terminal.
COSTS = {"g": 2, "params": 10, "MACs": 13, "forward": 9, "fwd+bwd": 9, "state": 5, "peak": 5}
CHANGES = {"params": 8, "MACs": 8, "forward": 8, "fwd+bwd": 8, "peak": 8}


def on_terminal() -> bool:
    return sys.stdout.isatty()


class Rows:
    """Shows each row as soon as it is there; on a terminal those of one setting stand under one heading."""

    def __init__(self, variants: Iterable[str], columns: dict[str, int]) -> None:
        self.columns = columns
        room = _columns() - sum(1 + width for width in columns.values())
        self.width = min(room, max(map(len, variants), default=0))
        self.setting: tuple[Any, ...] | None = None

    def costs(self, row: Measurement) -> None:
        """A row on its own; off a terminal all that is known of it."""
        if not on_terminal():
            self._tabbed(asdict(row))
            for wrong in filter(None, (row.failed, row.miscount)):
                print(f"{row.variant} {row.shape}: {wrong}", file=sys.stderr)
        elif row.forward is None:
            self._aligned(row, [], row.refused or row.failed or "")
        else:
            self._aligned(row, _cells(row), row.failed or row.miscount or "")

    def changes(self, row: Measurement, old: Measurement) -> None:
        """What a row is of what it was, and in words what is no chance."""
        ratios, remark = _ratios(row, old), ", ".join(differences(row, old))
        if on_terminal():
            self._aligned(row, ratios, remark)
        else:
            known = {"variant": row.variant, "shape": row.shape, "batch_size": row.batch_size}
            known |= {"precision": row.precision, "device": row.device, "threads": row.threads}
            self._tabbed(known | dict(zip(CHANGES, ratios, strict=True)) | {"differences": remark})

    def _tabbed(self, cells: dict[str, Any]) -> None:
        if self.setting is None:
            print(*cells, sep="\t")
            self.setting = ()
        print(*map(_plain, cells.values()), sep="\t", flush=True)

    def _aligned(self, row: Measurement, cells: Sequence[str], remark: str) -> None:
        if row.setting != self.setting:
            print(end="" if self.setting is None else "\n")
            print(_heading(row), self._line("", list(self.columns)), sep="\n")
            self.setting = row.setting
        *above, last = textwrap.wrap(row.variant, self.width)
        print(*above, self._line(last, cells), sep="\n")
        if remark:
            print(textwrap.fill(remark, _columns(), initial_indent="  ", subsequent_indent="  "))

    def _line(self, variant: str, cells: Sequence[str]) -> str:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, self.columns.values(), strict=bool(cells))]
        return " ".join([f"{variant:{self.width}}", *padded]).rstrip()


def compare(earlier: Table, table: Table) -> None:
    """Every row that both tables have, as new / old."""
    before = {row.key: row for row in earlier.rows if row.forward is not None}
    both = [(row, before[row.key]) for row in table.rows if row.forward is not None and row.key in before]
    if on_terminal():
        when = earlier.started[:16].replace("T", " ")
        same = all(table.machine[key] == earlier.machine.get(key) for key in table.machine if key != "git")
        elsewhere = "" if same else ", on another machine or torch"
        print(f"\nnew / old: {len(both)} row{'s' * (len(both) != 1)}, old of {when} UTC{elsewhere}")
    else:
        print()
    rows = Rows((row.variant for row, _ in both), CHANGES)
    for row, old in both:
        rows.changes(row, old)


def differences(row: Measurement, old: Measurement) -> list[str]:
    """Other counts, and times whose quartiles lie apart."""
    told = []
    for name, now, then in (("params", row.params, old.params), ("MACs", row.macs, old.macs)):
        if now is not None and then is not None and now != then:
            told.append(f"{name} {then:,} -> {now:,}")
    for name, new, past in (("forward", row.forward, old.forward), ("fwd+bwd", row.step, old.step)):
        if new is not None and past is not None and (new[0] > past[2] or new[2] < past[0]):
            told.append(f"{name} {'slower' if new[0] > past[2] else 'faster'}")
    return told


def _ratios(row: Measurement, old: Measurement) -> list[str]:
    def measured(m: Measurement) -> list[float | None]:
        return [m.params, m.macs, m.forward and m.forward[1], m.step and m.step[1], m.peak_bytes]

    pairs = zip(measured(row), measured(old), strict=True)
    return [f"{new / past:.2f}" if new is not None and past else "" for new, past in pairs]


def _cells(row: Measurement) -> list[str]:
    groups = str(row.groups) if row.groups not in (None, 1) else ""
    counts = [_whole(row.params, COSTS["params"]), _whole(row.macs, COSTS["MACs"])]
    return [
        groups,
        *counts,
        *map(spread, (row.forward, row.step)),
        *map(size, (row.state_bytes, row.peak_bytes)),
    ]


def _heading(row: Measurement) -> str:
    threads = f"{row.threads} thread{'s' * (row.threads != 1)}"
    return f"{row.shape}, batch {row.batch_size}, {row.precision}, {row.device}, {threads}"


def _whole(count: int | None, width: int) -> str:
    """Every digit, where there is room for them."""
    text = f"{count:,}"
    return text if len(text) <= width else size(count)


def spread(quartiles: Quartiles | None) -> str:
    """Median and half the distance of the quartiles.

    >>> spread((1.25, 1.28, 1.31)), spread((10.0, 12.34, 14.0)), spread((100.0, 123.4, 140.0))
    ('1.28±0.03', '12.3±2.0', '123±20')
    """
    if quartiles is None:
        return ""
    low, median, high = quartiles
    decimals = 2 if median < 10 else 1 if median < 100 else 0
    return f"{median:.{decimals}f}±{(high - low) / 2:.{decimals}f}"


def size(count: int | None) -> str:
    """Bytes to three digits.

    >>> size(0), size(999), size(295_424), size(48_800_000), size(1_230_000_000)
    ('0', '999', '295k', '48.8M', '1.23G')
    """
    if count is None:
        return ""
    scaled, units = float(count), iter(["", "k", "M", "G", "T"])
    unit = next(units)
    while scaled >= 999.5:
        scaled, unit = scaled / 1000, next(units)
    return f"{scaled:.3g}{unit}"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _columns() -> int:
    return shutil.get_terminal_size().columns
