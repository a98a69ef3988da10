"""The page that a report writes: whole, self-contained, and drawn as it should be by a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from cnnlab.report.axes import axis
from cnnlab.report.find import runs_below
from cnnlab.report.findings import report
from cnnlab.report.page import page
from cnnlab.report.plots import Mark, apart, curves, scatter
from tests.report_runs import run

VOID = {"meta", "br"}
NASTY = "</title><script>alert('&\"')</script>"


class Outline(HTMLParser):
    """Tags, attributes and text of a document whose elements must close in order."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def folder(tmp_path):
    """Runs of three variants, one of them failed in all but one seed, with histories."""
    for conv, score in (
        ("standard", 0.8),
        ("decoupled_tanh", 0.85),
        ("a_word_that_is_rather_long_to_read", 0.9),
    ):
        for seed in range(3):
            final = score + 0.01 * seed * score
            path = run(
                tmp_path, final, seed=seed, conv=conv, params=int(2000 * score) ** 2, values={"x.y": conv}
            )
            rows = [f"{20 * e},{e},{final - 0.5 / (e + 1)},{100 / (e + 1) ** 4}" for e in range(1, 6)]
            (path / "history.csv").write_text("\n".join(["step,epoch,val/accuracy,ortho/loss", *rows, ""]))
    run(tmp_path, None, seed=3, error=f"ValueError: {NASTY}\nsecond line", conv=NASTY)
    return tmp_path


def made(folder):
    return page(report(runs_below([folder]), "val/accuracy", {}, f"runs of {NASTY}"))


def test_a_page_is_whole_and_needs_nothing_else(folder):
    outline = Outline(made(folder))
    assert "script" not in outline.tags
    assert not {"src", "href", "xlink:href"} & {name for name, _ in outline.attributes}
    assert "url(" not in made(folder) and "@import" not in made(folder)
    assert ("name", "viewport") in outline.attributes
    assert ("lang", "en") in outline.attributes


def test_what_runs_say_of_themselves_is_text_and_never_markup(folder):
    outline = Outline(made(folder))
    said = "".join(outline.text)
    assert f"runs of {NASTY}" in said
    assert f"ValueError: {NASTY}" in said
    assert "second line" not in said


def test_a_page_shows_curves_differences_and_costs(folder):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", made(folder))
    assert captions == [
        "Difference to standard, x.y=standard, Holm-corrected",
        "val/accuracy, median run of each variant",
        "ortho/loss, median run of each variant",
        "val/accuracy against parameters",
        "Time per iteration",
    ]


def test_plots_stay_readable_with_many_variants(tmp_path):
    for i in range(30):
        run(tmp_path, 0.5 + i / 100, conv=f"v{i}", images_per_s=100.0 + i)
    document = made(tmp_path)
    assert "Time per iteration (the best 12 of 30)" in document
    assert document.count("<tr>") > 60  # the tables have them all


def test_a_history_that_cannot_be_read_leaves_only_its_curve_out(folder):
    for path in folder.glob("standard*/history.csv"):
        path.write_text("step,epoch,val/accuracy\n1,1,not a number\n")
    for path in folder.glob("decoupled*/history.csv"):
        path.write_bytes(b"\xff\x00")
    assert made(folder).count('class="line c') == 2 + 2  # two intervals; two curves, of the third variant


def test_runs_of_which_none_is_done_still_make_a_page(tmp_path):
    run(tmp_path, None, error="MemoryError")
    said = "".join(Outline(made(tmp_path)).text)
    assert "No run with a finite val/accuracy is done." in said
    assert "MemoryError" in said


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-1e-9, 1e9], [0.97, 0.970001], [5, 1e300]])
def test_axes_have_a_few_round_ticks_within(values):
    scale = axis(values, 0, 300)
    assert 2 <= len(scale.ticks) <= 8
    assert all(0 <= scale(tick) <= 300 for tick in scale.ticks)
    assert all(0 < scale(value) < 300 for value in values)


def test_labels_keep_apart_and_inside():
    placed = apart([50, 51, 52, 299], [20] * 4, 0, 300)
    assert all(b - a >= 20 for a, b in pairwise(placed))
    assert placed[-1] + 10 <= 300


def test_a_curve_starts_and_ends_at_its_values():
    figure = curves("t", [Mark(("a",), "c0", [(0, 0.0), (10, 1.0)])], "epoch")
    line = figure.find(".//polyline").get("points")
    (x0, y0), (x1, y1) = ([float(n) for n in pair.split(",")] for pair in line.split())
    assert x0 < x1 and y0 > y1  # pixels count downwards


def test_the_front_steps_up_to_the_right():
    marks = [Mark((f"{x}",), "c0", [(x, y)], on_front=True) for x, y in ((1, 0.1), (2, 0.5), (3, 0.9))]
    line = scatter("t", marks, "cost").find(".//polyline[@class='front']").get("points")
    pixels = [tuple(float(n) for n in pair.split(",")) for pair in line.split()]
    assert pixels == sorted(pixels, key=lambda pixel: (pixel[0], -pixel[1]))
    assert len(pixels) == 2 * 3


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

# What the browser has made of the page: its width, colours, and texts that stick out of their plot.
MEASURE = """<script>
addEventListener("load", () => {
  const out = [...document.querySelectorAll("svg text")].filter(text => {
    const box = text.getBoundingClientRect(), plot = text.closest("svg").getBoundingClientRect();
    return box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1;
  });
  const said = {width: document.documentElement.scrollWidth, window: innerWidth,
                page: getComputedStyle(document.body).backgroundColor,
                lines: [...document.querySelectorAll(".line")].map(line => getComputedStyle(line).stroke),
                out: out.map(text => text.textContent)};
  document.body.innerHTML = "<pre>" + JSON.stringify(said) + "</pre>";
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it_on_a_phone_in_light_and_dark(folder, tmp_path, dark):
    path = tmp_path / "measured.html"
    path.write_text(made(folder) + MEASURE)
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    command = [CHROMIUM, *flags.split(), "--window-size=390,800", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", f"file://{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(re.search("<pre>(.*)</pre>", done.stdout)[1])
    assert said["width"] <= said["window"]
    assert said["out"] == []
    assert said["page"] == ("rgb(20, 23, 26)" if dark else "rgb(251, 251, 250)")
    assert len(set(said["lines"])) == 3  # a colour for each variant
