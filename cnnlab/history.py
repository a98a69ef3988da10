"""history.csv: a row per logged step and per epoch; the record that survives a killed process."""

import csv
from pathlib import Path

from cnnlab.atomic import replacing

Row = dict[str, float]


class History:
    """Rows of `step`, `epoch` and metrics, appended one at a time; a new metric adds a column.

    >>> import tempfile
    >>> history = History(Path(tempfile.mkdtemp(), "history.csv"))
    >>> history.append({"step": 0, "epoch": 0, "ortho/loss": 37.5})
    >>> history.append({"step": 20, "epoch": 1, "val/accuracy": 0.5})
    >>> history.rows()
    [{'step': 0, 'epoch': 0, 'ortho/loss': 37.5}, {'step': 20, 'epoch': 1, 'val/accuracy': 0.5}]
    >>> history.cut(after=0)  # the process was killed, and resumes from step 0
    >>> len(history.rows())
    1
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), [])

    def append(self, row: Row) -> None:
        new = [column for column in row if column not in self.columns]
        if new:
            self._write(self.rows(), [*self.columns, *new])
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def rows(self) -> list[Row]:
        """All whole rows; a last line torn by a kill is left out."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        whole = text[: text.rfind("\n") + 1].splitlines()
        read = {"step": int, "epoch": int}
        return [
            {key: read.get(key, float)(value) for key, value in row.items() if value}
            for row in csv.DictReader(whole)
        ]

    def cut(self, after: int) -> None:
        """Drop the rows of steps that will be trained again."""
        self._write([row for row in self.rows() if row["step"] <= after], self.columns)

    def _write(self, rows: list[Row], columns: list[str]) -> None:
        with replacing(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self.columns = columns
