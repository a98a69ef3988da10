"""`cnnlab report` as its users meet it: tables, a page beside the runs, one line where a request is wrong."""

import csv
import io

import pytest

from cnnlab.allowed import RequestError
from cnnlab.report.command import main
from tests.report_runs import run


@pytest.fixture
def folder(tmp_path):
    for conv, scores in (("standard", (0.90, 0.91, 0.92)), ("fft", (0.80, 0.82, 0.81))):
        for seed, score in enumerate(scores):
            run(tmp_path, score, seed=seed, conv=conv)
    return tmp_path


@pytest.fixture
def say(capsys):
    def say(*arguments):
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return say


def test_it_prints_the_tables_and_writes_the_page(folder, say):
    said = say(folder)
    assert "standard 3  0.9100 ± 0.0100" in said
    assert said.splitlines()[-1] == f"{folder}/report.html"
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_asked_again_it_writes_the_same_page(folder, say):
    say(folder)
    before = (folder / "report.html").read_bytes()
    say(folder)
    assert (folder / "report.html").read_bytes() == before


def test_text_is_80_columns_wide(folder, say):
    run(folder, 0.7, conv="a_convolution_with_a_name_of_forty_letters", values={"conv.knob": "x" * 50})
    said = say(folder, "--format", "text")
    tables = [line for line in said.splitlines() if not line.startswith("/")]
    assert max(map(len, tables)) <= 80
    assert not (folder / "report.html").exists()


def test_csv_has_every_digit(folder, say):
    lines = list(csv.DictReader(io.StringIO(say(folder, "--format", "csv"))))
    assert [line["variant"] for line in lines] == ["standard", "fft"]
    assert float(lines[1]["val/accuracy"]) == pytest.approx(0.81, abs=1e-15)
    assert float(lines[1]["difference"]) == pytest.approx(-0.1, abs=1e-15)
    assert lines[1]["seeds"] == "0 1 2"
    assert lines[0]["difference"] == ""
    assert lines[1]["parameters"] == "1000.0"
    assert lines[1]["test/accuracy"].startswith("0.80")


def test_markdown_cells_stay_in_their_columns(folder, say):
    run(folder, 0.7, conv="a|b*c<d>")
    tables = [line for line in say(folder, "--format", "markdown").splitlines() if line.startswith("|")]
    row = next(line for line in tables if "a\\|b" in line)
    assert row.startswith("| 'a\\|b\\*c&lt;d>' | 1 | 0.7000 |")


def test_a_failed_run_is_named_with_the_first_line_of_its_error(folder, say):
    run(folder, None, conv="gabor", seed=5, error="NonFiniteLoss: nan at step 3\nTraceback")
    for form in ("text", "markdown", "html"):
        said = " ".join(say(folder, "--format", form).split())
        assert "gabor, seed=5" in said
        assert "NonFiniteLoss: nan at step 3" in said
        assert "Traceback" not in said


def test_a_broken_result_is_named(folder, say):
    (folder / "bad").mkdir()
    (folder / "bad" / "result.json").write_text("{")
    for form in ("text", "markdown", "html"):
        assert f"{folder}/bad/result.json: not a result" in say(folder, "--format", form)


def test_what_others_wrote_cannot_steer_the_terminal(folder, say):
    run(folder, None, error="\x1b[31m red \x00 \ud800", conv="\x1b[2J")
    for form in ("text", "markdown", "csv", "html"):
        assert not {"\x1b", "\x00", "\ud800"} & {*say(folder, "--format", form)}


def test_square_brackets_of_values_are_printed(folder, say):
    run(folder, 0.5, values={"model.filters": [16, 32], "x": "[bold]"})
    assert "model.filters=[16,32]" in "".join(say(folder, "--format", "text").split())


def test_several_folders_make_one_report_in_the_first(folder, tmp_path_factory, say):
    other = tmp_path_factory.mktemp("other")
    run(other, 0.99, conv="gabor")
    assert "best of 3" in say(other, folder)
    assert (other / "report.html").exists()
    assert not (folder / "report.html").exists()


def test_output_says_where(folder, tmp_path, say):
    say(folder, "--output", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert say(folder, "--format", "csv", "--output", tmp_path / "runs.csv") == ""
    assert (tmp_path / "runs.csv").read_text().startswith("data,variant,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--metric", "test/accuracy"],
            "--metric test/accuracy: the test set is not for selecting, val/accuracy is",
        ),
        (["--metric", "time/images_per_s"], "--metric time/images_per_s: only `cnnlab bench` ranks by time"),
        (["--metric", "val/acuracy"], "--metric val/acuracy: no run has it, did you mean 'val/accuracy'?"),
        (["--baseline", "fft"], "argument --baseline: must be KEY=VALUE, as in conv=standard, got fft"),
        (
            ["--baseline", "conv=ftf"],
            "--baseline conv=ftf: no run that is done has it; conv is fft or standard, did you mean 'fft'?",
        ),
        (["--format", "pdf"], "argument --format: invalid choice: 'pdf'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--output", "/dev/null/x"], "/dev/null/x: Not a directory; --output FILE writes elsewhere"),
    ],
)
def test_a_wrong_request_is_one_line(folder, arguments, message):
    with pytest.raises(RequestError) as refusal:
        main([str(folder), *arguments])
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_nothing_to_report_is_one_line(tmp_path):
    for folders, message in (
        ([], "report: DIR is missing"),
        ([f"{tmp_path}/gone"], f"report {tmp_path}/gone: no such folder"),
        ([str(tmp_path)], f"report {tmp_path}: no result.json in it"),
    ):
        with pytest.raises(RequestError, match=message):
            main(folders)


def test_help_needs_no_folder(say):
    assert "--baseline KEY=VALUE" in say("--help")
