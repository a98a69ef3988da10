"""A training as pictures: curves of history.csv, and the distributions of histograms.jsonl over time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnlab.history import Row
from cnnlab.monitor.histograms import Histogram

if TYPE_CHECKING:  # only who draws imports it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
HEALTHY = 1e-3  # ratio of an update to the weights
MOST_LAYERS = 8  # of which distributions are drawn, evenly taken
ROWS = 64  # of a distribution over time

# Title, the figure it shows of each layer, and whether its scale is logarithmic.
PANELS = (
    ("update / weight", "update_ratio", True),
    ("weights near zero", "near_zero", False),
    ("dead units", "dead", False),
    ("saturated outputs", "saturated", False),
)


def curves(rows: Sequence[Row], advice: Sequence[str]) -> "Figure":
    """Losses (log scale), accuracies and their gap, and the figures of the layers, over epochs."""
    from matplotlib.figure import Figure

    figure = Figure((12, 7 + 0.25 * len(advice)), layout="constrained")
    loss, accuracy, *others = figure.subplots(2, 3).flat
    ends = [row for row in rows if "train/loss" in row]
    steps = ends[-1]["step"] / ends[-1]["epoch"] if ends else 1  # in an epoch

    def draw(axis: "Axes", title: str, keys: Sequence[str], *, log: bool = False) -> None:
        for index, key in enumerate(key for key in keys if any(key in row for row in rows)):
            x, y = np.array([(row["step"] / steps, row[key]) for row in rows if key in row]).T
            shown = np.isfinite(y) & ((y > 0) | (not log))
            look = {"alpha": 0.4} if key == "train/loss_step" else {"marker": ".", "label": _last(key)}
            axis.plot(x, np.where(shown, y, np.nan), color=COLOURS[index % len(COLOURS)], **look)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.2)
        if log:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        if axis.lines:
            axis.legend(fontsize=7, frameon=False, ncols=1 + len(axis.lines) // 9)
        else:
            axis.set_axis_off()

    draw(loss, "loss (faint: of one batch)", ("train/loss", "val/loss", "train/loss_step"), log=True)
    draw(accuracy, "accuracy", ("train/accuracy", "val/accuracy"))
    if both := [row for row in ends if {"train/accuracy", "val/accuracy"} <= row.keys()]:
        gap = ([row[key] for row in both] for key in ("train/accuracy", "val/accuracy"))
        accuracy.fill_between([row["step"] / steps for row in both], *gap, color="grey", alpha=0.15)
    for axis, (title, kind, log) in zip(others, PANELS, strict=True):
        keys = {key for row in rows for key in row if key.startswith(f"{kind}/")}
        draw(axis, title, sorted(keys, key=_natural), log=log)
    others[0].axhline(HEALTHY, color="grey", linestyle=":")
    figure.supxlabel("\n".join(advice), fontsize=9, x=0.01, ha="left")
    return figure


def distributions(steps: Sequence[tuple[int, dict[str, Histogram]]]) -> "Figure":
    """A column a layer, a row each for its activations, gradients and weights: histograms over steps."""
    from matplotlib.figure import Figure

    layers = [_last(name) for name in (steps[0][1] if steps else ()) if name.startswith("weight/")]
    taken = np.linspace(0, len(layers) - 1, min(MOST_LAYERS, len(layers))).round().astype(int)
    kinds = ("activation", "gradient", "weight")
    figure = Figure((2.2 * max(1, len(taken)) + 1, 6), layout="constrained")
    panels = figure.subplots(len(kinds), max(1, len(taken)), squeeze=False)
    for row, kind in enumerate(kinds):
        for axis, layer in zip(panels[row], (layers[index] for index in taken), strict=False):
            key = f"{kind}/{layer}"
            axis.set_title(f"{kind} {layer}", loc="left", fontsize=9)
            axis.tick_params(labelsize=7)
            series = {step: found[key] for step, found in steps if key in found and any(found[key].counts)}
            if not series:
                axis.set_axis_off()
                continue
            low, high = min(h.low for h in series.values()), max(h.high for h in series.values())
            edges = np.linspace(low, high, ROWS + 1) if low < high else np.array([low - 1, low + 1])
            shares = np.array([share(histogram, edges) for histogram in series.values()]).T  # (bins, steps)
            # A column reaches from the step before to its own; the root lets thin tails be seen.
            axis.pcolormesh([0, *series], edges, np.sqrt(shares), cmap="magma_r", vmin=0)
    figure.supxlabel("step; dark: many values", fontsize=9)
    return figure


def share(histogram: Histogram, edges: np.ndarray) -> np.ndarray:
    """The shares of a histogram's values between other edges, evenly spread within its own bins.

    >>> share(Histogram(0.0, 4.0, [2, 6]), np.array([-1.0, 1.0, 2.0, 5.0]))
    array([0.125, 0.125, 0.75 ])
    """
    low, high, counts = histogram
    if low == high:
        return np.histogram([low], edges)[0].astype(float)
    below = np.concatenate([[0], np.cumsum(counts)]) / sum(counts)
    return np.diff(np.interp(edges, np.linspace(low, high, len(counts) + 1), below))


def pixels(figure: "Figure") -> np.ndarray:
    """The drawn figure, (height, width, 3), uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _last(key: str) -> str:
    """`train` of train/loss, `conv1` of dead/conv1."""
    kind, _, name = key.partition("/")
    return kind if name in ("loss", "accuracy") else name


def _natural(key: str) -> tuple[str, int]:
    """conv2 before conv10."""
    word = key.rstrip("0123456789")
    return word, int(key[len(word) :] or 0)
