"""Which plots a page shows of the runs on one data set, and what is drawn in them."""

import csv
import math
from statistics import fmean
from xml.etree.ElementTree import Element

from cnnlab.history import History
from cnnlab.report.costs import COSTS, Cost, front, known_costs, mean_cost
from cnnlab.report.find import Run
from cnnlab.report.findings import Findings
from cnnlab.report.plots import Mark, Point, curves, dots, scatter
from cnnlab.report.variants import Variant

COLOURS = 8
MOST_ROWS = 12


class Gallery:
    """The plots of one data set; a variant has one colour in all of them."""

    def __init__(self, findings: Findings, metric: str) -> None:
        assert findings.whole is not None
        self.metric, self.variants, self.whole = metric, findings.ranked, findings.whole
        # Colours go to the best, and to the baseline, wherever it stands.
        first = [v for v in self.variants if v.label == self.whole.baseline.label]
        self.drawn = (first + [v for v in self.variants if v not in first])[:COLOURS]
        self.colours = {variant.label: f"c{i}" for i, variant in enumerate(self.drawn)}

    def decision(self) -> list[Element]:
        """Differences to the baseline, and learning curves."""
        return [*self._differences(), *self._curves(self.metric), *self._curves("ortho/loss")]

    def costs(self) -> list[Element]:
        return [*(plot for cost in COSTS for plot in self._scatter(cost)), *self._times()]

    def _differences(self) -> list[Element]:
        marks = [
            Mark(row.label, self._colour(row.label), [(row.difference.mean, 0)], row.difference.interval)
            for row in self.whole.rows
            if row.difference is not None
        ]
        title = f"Difference to {', '.join(self.whole.baseline.label)}, Holm-corrected"
        return _dots(title, marks, self.metric)

    def _curves(self, name: str) -> list[Element]:
        marks = [
            Mark(variant.label, self._colour(variant.label), points)
            for variant in self.drawn
            if (points := _curve(median(variant, self.metric), name))
        ]
        return [curves(f"{name}, median run of each variant", marks, "epoch")] if marks else []

    def _scatter(self, cost: Cost) -> list[Element]:
        on_front = front(self.variants, cost, self.metric)
        marks = [
            Mark(
                variant.label,
                self._colour(variant.label),
                [(mean, fmean(variant.scores(self.metric).values()))],
                on_front=i in on_front,
            )
            for i, variant in enumerate(self.variants)
            if (mean := mean_cost(variant, cost)) is not None
        ]
        if len({mark.points[0][0] for mark in marks}) < 2:  # all cost the same
            return []
        return [scatter(f"{self.metric} against {cost.name}{self._crowd(cost)}", marks, cost.name)]

    def _times(self) -> list[Element]:
        cost = next(cost for cost in COSTS if cost.name == "ms/batch")
        marks = []
        for variant in self.variants:
            if known := known_costs(variant, cost):
                points = [(fmean(known), 0.0), *((value, 0.0) for value in known)]
                marks.append(Mark(variant.label, self._colour(variant.label), points))
        return _dots(f"Time per iteration{self._crowd(cost)}", marks, cost.name)

    def _crowd(self, cost: Cost) -> str:
        shared = cost.is_timed and any(variant.shared for variant in self.variants)
        return ", on a shared machine" if shared else ""

    def _colour(self, label: tuple[str, ...]) -> str:
        return self.colours.get(label, "")


def _dots(title: str, marks: list[Mark], name: str) -> list[Element]:
    """As many rows as one looks at; the table has them all."""
    if len(marks) > MOST_ROWS:
        title += f" (the best {MOST_ROWS} of {len(marks)})"
    return [dots(title, marks[:MOST_ROWS], name, reference=0)] if marks else []


def median(variant: Variant, metric: str) -> Run:
    """The run in the middle by its score; of an even number the lower of the two."""
    scores = variant.scores(metric)
    replicates = sorted(scores, key=lambda replicate: scores[replicate])
    return variant.runs[replicates[(len(replicates) - 1) // 2]]


def _curve(run: Run, name: str) -> list[Point]:
    """A metric over epochs; none where the history cannot be read."""
    try:
        rows = History(run.folder / "history.csv").rows()
    except (OSError, ValueError, csv.Error, KeyError, TypeError):
        return []
    points = [(row["epoch"], row[name]) for row in rows if name in row and "epoch" in row]
    return [(x, y) for x, y in points if math.isfinite(y)]
