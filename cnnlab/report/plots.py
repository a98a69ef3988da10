"""Plots as inline SVG with labels at the marks: curves, dots with intervals, scatter with a front.

Colours are classes `c0`..`c7` (others: none), which the page defines for light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from cnnlab.report.axes import Axis, axis, suits_log
from cnnlab.report.grids import amount
from cnnlab.report.markup import element
from cnnlab.report.table import number

WIDTH, HEIGHT = 400, 280  # a phone is about as wide: text is then as large as it is drawn
LEFT, BOTTOM, TOP, RIGHT = 46, 36, 12, 14
LINE = 13  # height of a line of text
CHARACTER = 6.8  # width of one
LABEL = 21  # most characters of a label's line
LINES = 3  # most lines of a label

Label = Sequence[str]
Point = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """One variant in a plot: points of a curve, or one."""

    label: Label
    colour: str
    points: Sequence[Point]
    interval: tuple[float, float] | None = None
    on_front: bool = False


def curves(title: str, marks: Sequence[Mark], x_name: str) -> Element:
    """Lines with their names at the right end."""
    ys = [y for mark in marks for _, y in mark.points]
    heights = [LINE * len(_short(mark.label)) + 2 for mark in marks]
    height = max(HEIGHT, sum(heights) + BOTTOM)
    widest = max(len(line) for mark in marks for line in _short(mark.label))
    x = axis([x for mark in marks for x, _ in mark.points], LEFT, WIDTH - RIGHT - widest * CHARACTER)
    y = axis(ys, height - BOTTOM, TOP, is_log=suits_log(ys))
    wanted = [y(mark.points[-1][1]) for mark in marks]
    parts = _frame(x, y, x_name)
    for mark, at in zip(marks, apart(wanted, heights, 0, height - BOTTOM), strict=True):
        pixels = [(x(px), y(py)) for px, py in mark.points]
        end = pixels[-1]
        parts += [
            element(
                "polyline",
                _hover(mark, mark.points[-1][1]),
                points=_points(pixels),
                class_=f"line {mark.colour}",
            ),
            element(
                "circle",
                _hover(mark, mark.points[-1][1]),
                cx=end[0],
                cy=end[1],
                r=3,
                class_=f"dot {mark.colour}",
            ),
            element("line", x1=end[0] + 4, y1=end[1], x2=x.end + 2, y2=at, class_=f"leader {mark.colour}"),
            _label(mark, x.end + 4, at - LINE * (len(_short(mark.label)) - 1) / 2, "start"),
        ]
    return _figure(title, parts, height)


def dots(title: str, marks: Sequence[Mark], x_name: str, reference: float | None = None) -> Element:
    """A row for each mark: its interval, a dot for its first point and faint ones for the others."""
    rows = [max(LINE * len(_short(mark.label)) + 8, 24) for mark in marks]
    height = TOP + sum(rows) + BOTTOM
    widest = max(len(line) for mark in marks for line in _short(mark.label))
    xs = [x for mark in marks for x, _ in mark.points] + [x for mark in marks for x in mark.interval or ()]
    x = axis([*xs, *([] if reference is None else [reference])], 16 + widest * CHARACTER, WIDTH - RIGHT)
    parts = _x_ticks(x, height - BOTTOM, x_name)
    if reference is not None:
        at = x(reference)
        parts.append(element("line", x1=at, y1=TOP, x2=at, y2=height - BOTTOM, class_="reference"))
    top = float(TOP)
    for mark, row in zip(marks, rows, strict=True):
        middle = top + row / 2
        top += row
        parts.append(_label(mark, x.start - 8, middle - LINE * (len(_short(mark.label)) - 1) / 2, "end"))
        value, *others = (x(value) for value, _ in mark.points)
        if mark.interval:
            low, high = map(x, mark.interval)
            hover = _hover(mark, *mark.interval)
            parts.append(
                element("line", hover, x1=low, y1=middle, x2=high, y2=middle, class_=f"line {mark.colour}")
            )
        parts += [
            element("circle", cx=at, cy=middle, r=2.5, class_=f"dot faint {mark.colour}") for at in others
        ]
        hover = _hover(mark, mark.points[0][0])
        parts.append(element("circle", hover, cx=value, cy=middle, r=4.5, class_=f"dot {mark.colour}"))
    return _figure(title, parts, height)


def scatter(title: str, marks: Sequence[Mark], x_name: str) -> Element:
    """Points with names where there is room, and steps along the Pareto front."""
    places = [mark.points[0] for mark in marks]
    xs = [px for px, _ in places]
    x = axis(xs, LEFT, WIDTH - RIGHT, is_log=suits_log(xs))
    y = axis([py for _, py in places], HEIGHT - BOTTOM, TOP)
    parts = _frame(x, y, x_name)
    pixels = [(x(px), y(py)) for px, py in places]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in pixels]
    front = sorted(at for mark, at in zip(marks, pixels, strict=True) if mark.on_front)
    if front:
        # From the cheapest on, a step up where a dearer one is better; beyond the last nothing is gained.
        corners = front[:1]
        for at in front[1:]:
            corners += [(at[0], corners[-1][1]), at]
        corners.append((x.end, corners[-1][1]))
        parts.append(element("polyline", points=_points(corners), class_="front"))
        taken += [
            (ax - 1, min(ay, by) - 1, bx + 1, max(ay, by) + 1) for (ax, ay), (bx, by) in pairwise(corners)
        ]
    for mark, (px, py) in sorted(zip(marks, pixels, strict=True), key=lambda pair: not pair[0].on_front):
        kind = "dot" if mark.on_front else "dot hollow"
        hover = _hover(mark, *mark.points[0])
        parts.append(element("circle", hover, cx=px, cy=py, r=4.5, class_=f"{kind} {mark.colour}"))
        if mark.colour and (room := _room(mark.label, px, py, taken)):
            parts.append(_label(mark, *room))
    return _figure(title, parts, HEIGHT)


def apart(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Middles of labels near where they are wanted, none over another while there is room.

    >>> apart([10, 11, 50], [10, 10, 10], 0, 100)
    [10, 20.0, 50]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    bottom = low
    for i in order:
        placed[i] = max(placed[i], bottom + heights[i] / 2)
        bottom = placed[i] + heights[i] / 2
    for i in reversed(order):
        placed[i] = min(placed[i], high - heights[i] / 2)
        high = placed[i] - heights[i] / 2
    return placed


def _room(
    label: Label, x: float, y: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str] | None:
    """Where a label stands free beside its point, if anywhere; the place is then taken."""
    lines = _short(label)
    width, height = max(map(len, lines)) * CHARACTER, LINE * len(lines)
    for anchor, left, top in (
        ("start", x + 8, y - height / 2),
        ("end", x - 8 - width, y - height / 2),
        ("middle", x - width / 2, y - 7 - height),
        ("middle", x - width / 2, y + 7),
        ("start", x + 8, y - height - 2),
        ("start", x + 8, y + 2),
        ("end", x - 8 - width, y - height - 2),
        ("end", x - 8 - width, y + 2),
    ):
        box = (left, top, left + width, top + height)
        inside = left >= LEFT and box[2] <= WIDTH and top >= 0 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return {"start": left, "end": box[2], "middle": x}[anchor], top + LINE / 2, anchor
    return None


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _short(label: Label) -> list[str]:
    """A line for each part, as far as there is room."""
    parts = label if len(label) <= LINES else [*label[: LINES - 1], "…"]
    return [part if len(part) <= LABEL else f"{part[: LABEL - 1]}…" for part in parts]


def _label(mark: Mark, x: float, y: float, anchor: str) -> Element:
    """Lines of text, the first with its middle at y."""
    lines = [element("tspan", line, x=x, y=y + 4 + LINE * i) for i, line in enumerate(_short(mark.label))]
    return element("text", *lines, text_anchor=anchor, class_=f"label {mark.colour}")


def _hover(mark: Mark, *values: float) -> Element:
    return element("title", f"{', '.join(mark.label)}: {', '.join(map(number, values))}")


def _frame(x: Axis, y: Axis, x_name: str) -> list[Element]:
    parts = _x_ticks(x, y.start, x_name)
    for tick in y.ticks:
        at = y(tick)
        parts += [
            element("line", x1=x.start, y1=at, x2=x.end, y2=at, class_="grid"),
            element("text", _tick(tick), x=x.start - 6, y=at + 4, text_anchor="end", class_="tick"),
        ]
    return parts


def _x_ticks(x: Axis, bottom: float, name: str) -> list[Element]:
    parts = []
    for tick in x.ticks:
        at = x(tick)
        parts += [
            element("line", x1=at, y1=TOP, x2=at, y2=bottom, class_="grid"),
            element("text", _tick(tick), x=at, y=bottom + 15, text_anchor="middle", class_="tick"),
        ]
    middle = (x.start + x.end) / 2
    return [*parts, element("text", name, x=middle, y=bottom + 31, text_anchor="middle", class_="tick")]


def _tick(value: float) -> str:
    return amount(value) if abs(value) >= 1000 else f"{value:g}"


def _points(pixels: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)


def _figure(title: str, parts: Sequence[Element], height: float) -> Element:
    svg = element("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=title)
    return element("figure", element("figcaption", title), svg)
