"""histograms.jsonl: a line per monitored step; like history.csv it survives a killed process."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab.atomic import replacing


class Histogram(NamedTuple):
    """Counts of values in equal bins from `low` to `high`."""

    low: float
    high: float
    counts: list[int]


class Histograms:
    """Lines of `step`, `epoch` and, by name, [low, high, counts].

    >>> import tempfile
    >>> histograms = Histograms(Path(tempfile.mkdtemp(), "histograms.jsonl"))
    >>> for step in (1, 100):
    ...     histograms.append(step, 0, {"gradient/conv1": Histogram(-1.0, 3.0, [5, 1])})
    >>> histograms.cut(after=50)  # the process was killed, and resumes from step 50
    >>> histograms.read()
    [(1, {'gradient/conv1': Histogram(low=-1.0, high=3.0, counts=[5, 1])})]
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, epoch: int, histograms: dict[str, Histogram]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "epoch": epoch, **histograms}) + "\n")

    def read(self) -> list[tuple[int, dict[str, Histogram]]]:
        return [
            (row["step"], {name: Histogram(*value) for name, value in row.items() if isinstance(value, list)})
            for row in self._rows()
        ]

    def cut(self, after: int) -> None:
        """Drop the lines of steps that will be trained again."""
        kept = [row for row in self._rows() if row["step"] <= after]
        with replacing(self.path) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def _rows(self) -> list[dict[str, Any]]:
        """All whole lines; a last one torn by a kill is left out."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
