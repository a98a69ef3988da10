"""Tables of measurements: kept whole on disk, readable in 80 columns, and compared by what is no chance."""

from dataclasses import replace

import pytest

from cnnlab.allowed import RequestError
from cnnlab.bench import costs
from cnnlab.bench.costs import COSTS, Rows, compare, differences
from cnnlab.bench.measurement import Measurement, Table

ROW = Measurement(
    "decoupled_tanh rho=2.0",
    "64,128,3,32",
    64,
    "bf16-mixed",
    "cpu",
    2,
    groups=1,
    params=73856,
    param_bytes=295424,
    state_bytes=295424,
    macs=75497472,
    macs_by_torch=75497472,
    forward=(1.25, 1.28, 1.31),
    step=(1.1, 1.2, 1.3),
    baseline_forward_ms=3.5,
    baseline_step_ms=12.5,
    forward_repeats=50,
    step_repeats=20,
    peak_bytes=48_800_000,
    baseline_peak_bytes=40_000_000,
)


def table(*rows: Measurement, **machine: object) -> Table:
    return Table(
        {"cpu": "fast", "cores": 2, "torch": "2", "git": "abc"} | machine, "2026-01-02T03:04:05", [*rows]
    )


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What is shown on a terminal of 80 columns."""
    monkeypatch.setattr(costs, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")

    def lines() -> list[str]:
        shown = capsys.readouterr().out.splitlines()
        assert max(map(len, shown)) <= 80
        return shown

    return lines


def test_a_table_is_read_as_it_was_written(tmp_path):
    refused = replace(ROW, forward=None, macs=None, refused="no")
    table(ROW, refused).write(tmp_path / "t.json")
    again = Table.read(tmp_path / "t.json")
    again.write(tmp_path / "u.json")
    assert (tmp_path / "t.json").read_text() == (tmp_path / "u.json").read_text()
    assert again.rows[0].key == ROW.key and again.rows[1].refused == "no" and again.rows[1].macs is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "u.json"]


def test_a_table_that_cannot_be_written_leaves_the_one_that_is_there(tmp_path):
    table(ROW).write(tmp_path / "t.json")
    before = (tmp_path / "t.json").read_text()
    with pytest.raises(TypeError):
        table(ROW, cpu=object()).write(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text() == before


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"rows": []}', '{"rows": [{}], "machine": {}, "started": ""}', '{"rows": 3}', "\x00"],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(RequestError, match=r"^\S+t\.json: not a table of cnnlab bench$"):
        Table.read(tmp_path / "t.json")


def test_a_terminal_shows_each_figure_under_its_name(terminal):
    Rows([ROW.variant], COSTS).costs(ROW)
    setting, names, above, figures = terminal()
    assert setting == "64,128,3,32, batch 64, bf16-mixed, cpu, 2 threads"
    assert names.split() == ["g", "params", "MACs", "forward", "fwd+bwd", "state", "peak"]
    assert figures.rstrip().endswith("73,856    75,497,472 1.28±0.03 1.20±0.10  295k 48.8M")
    assert f"{above} {figures.split()[0]}" == ROW.variant


def test_a_long_variant_is_folded_and_not_cut(terminal):
    words = [f"model.knob{n}=value{n}" for n in range(9)]
    row = replace(ROW, variant=" ".join(words), groups=4, macs=10**12, step=(99.0, 123.4, 150.0))
    Rows([row.variant], COSTS).costs(row)
    shown = " ".join(terminal()).split()
    assert {*words, "4", "1T", "123±26"} <= {*shown}


def test_a_heading_stands_above_the_rows_of_a_setting(terminal):
    rows = Rows(["a"], COSTS)
    for precision in ("32-true", "32-true", "bf16-mixed"):
        rows.costs(replace(ROW, variant="a", precision=precision))
    starts = [line.partition(" ")[0] for line in terminal()]
    assert starts == ["64,128,3,32,", "", "a", "a", "", "64,128,3,32,", "", "a"]


def test_a_terminal_says_why_there_are_no_figures(terminal):
    Rows(["x"], COSTS).costs(replace(ROW, variant="x", forward=None, refused="out of the question " * 5))
    assert " ".join(" ".join(terminal()[2:]).split()) == "x " + ("out of the question " * 5).strip()


def test_elsewhere_all_is_set_off_by_tabs(capsys):
    rows = Rows(["a"], COSTS)
    rows.costs(ROW)
    rows.costs(replace(ROW, groups=None, refused="no"))
    names, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    first, second = (dict(zip(names, line, strict=True)) for line in lines)
    assert (first["macs"], first["forward"], first["refused"]) == ("75497472", "1.25,1.28,1.31", "")
    assert (second["groups"], second["refused"]) == ("", "no")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"forward": (1.30, 1.35, 1.40)}, []),  # within the spread
        ({"forward": (1.32, 1.35, 1.40)}, ["forward slower"]),
        ({"step": (0.9, 1.0, 1.09)}, ["fwd+bwd faster"]),
        ({"macs": 1, "params": 73857}, ["params 73,856 -> 73,857", "MACs 75,497,472 -> 1"]),
        ({"peak_bytes": 1, "state_bytes": 1}, []),
    ],
)
def test_only_counts_and_times_beyond_the_spread_are_differences(change, expected):
    assert differences(replace(ROW, **change), ROW) == expected


def test_a_comparison_shows_new_over_old_of_the_rows_that_both_have(terminal):
    new = replace(ROW, forward=(2.5, 2.56, 2.6), macs=ROW.macs * 3)
    alone = replace(ROW, threads=1)
    lost = replace(ROW, variant="lost", forward=None, failed="out of memory")
    compare(
        table(ROW, replace(ROW, variant="gone"), replace(lost, forward=ROW.forward)), table(new, alone, lost)
    )
    _, first, _, names, figures, remark = terminal()
    assert first == "new / old: 1 row, old of 2026-01-02 03:04 UTC"
    assert names.split() == ["params", "MACs", "forward", "fwd+bwd", "peak"]
    assert figures.split()[2:] == ["1.00", "3.00", "2.00", "1.00", "1.00"]
    assert remark.strip() == "MACs 75,497,472 -> 226,492,416, forward slower"


def test_a_comparison_says_so_where_the_machine_is_another(terminal):
    compare(table(ROW, git="other"), table(ROW))
    assert "another" not in terminal()[1]
    compare(table(ROW, cpu="slow"), table(ROW))
    assert "another machine" in terminal()[1]


def test_a_comparison_elsewhere_is_set_off_by_tabs(capsys):
    compare(table(replace(ROW, step=(1.0, 1.0, 1.05))), table(ROW))
    _, names, line = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    row = dict(zip(names, line, strict=True))
    assert (row["shape"], row["fwd+bwd"], row["differences"]) == ("64,128,3,32", "1.20", "fwd+bwd slower")
