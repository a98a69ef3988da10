"""Results are found wherever they lie, and nothing that lies there stops a report."""

import json
import subprocess
import sys
import time

import pytest

from cnnlab.report.find import runs_below
from tests.report_runs import run


def test_results_lie_at_any_depth_and_count_once(tmp_path):
    folders = [run(tmp_path / "a", 0.5), run(tmp_path / "a" / "b" / "c", 0.6), run(tmp_path, 0.7)]
    found = runs_below([tmp_path, tmp_path / "a", tmp_path / "a" / ".." / "a"])
    assert sorted(found.runs[i].folder for i in range(3)) == sorted(folders)
    assert not found.broken


def test_what_lies_below_a_run_is_not_looked_at(tmp_path):
    run(run(tmp_path, 0.5) / "wandb", 0.9)
    assert [r.result.metrics["val/accuracy"] for r in runs_below([tmp_path]).runs] == [0.5]


def test_a_circle_of_links_ends(tmp_path):
    run(tmp_path / "runs", 0.5)
    (tmp_path / "runs" / "loop").symlink_to(tmp_path)
    assert len(runs_below([tmp_path]).runs) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"id": "a", "name": "b", "choices": ["conv"]}',
        b'{"id": "a", "name": "b", "metrics": {"val/accuracy": null}}',
        b'{"id": "a", "name": "b", "metrics": []}',
        b'{"id": ' + b"[" * 100_000,
        b'{"id": "a", "name": "b", "seed": "one"}',
        b'{"id": "a", "name": "b", "params": null}',
        b'{"id": "a", "name": "b", "started": 2026}',
        b'{"id": "a", "name": "b", "seed": true}',
        b'{"id": "a", "name": "b", "versions": {"torch": 5}}',
    ],
)
def test_a_broken_result_is_named_and_skipped(tmp_path, content):
    run(tmp_path, 0.5)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_bytes(content)
    found = runs_below([tmp_path])
    assert len(found.runs) == 1
    assert found.broken == [f"{tmp_path}/bad/result.json: not a result"]


def test_a_stray_result_does_not_hide_the_runs_below_it(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    run(tmp_path / "runs", 0.5)
    found = runs_below([tmp_path])
    assert len(found.runs) == 1 and found.broken == [f"{tmp_path}/result.json: not a result"]


def test_fields_of_another_version_are_ignored_and_missing_ones_are_no_error(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "result.json").write_text('{"id": "a", "name": "b", "colour": "green"}')
    assert [r.result.params for r in runs_below([tmp_path]).runs] == [0]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    run(tmp_path / "here", 0.5)
    found = runs_below([tmp_path / "here", tmp_path / "gone"])
    assert len(found.runs) == 1
    assert found.broken == [f"{tmp_path}/gone: No such file or directory"]


def test_a_thousand_runs_are_read_in_a_blink(tmp_path):
    text = (run(tmp_path, 0.5) / "result.json").read_text()
    for i in range(1000):
        folder = tmp_path / f"sweep{i % 10}" / f"run{i}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "result.json").write_text(text)
    start = time.process_time()
    assert len(runs_below([tmp_path]).runs) == 1001
    assert time.process_time() - start < 0.5  # about 0.1 s; 10,000 runs are to stay under 2 s


def test_a_report_needs_neither_torch_nor_pandas(tmp_path):
    run(tmp_path, 0.5)
    script = (
        "import json, sys; from cnnlab.report.command import main; main(sys.argv[1:]);"
        "print(json.dumps([name for name in ('torch', 'pandas', 'scipy.stats') if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
