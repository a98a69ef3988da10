"""A recorded run is found by its folder or its id; what is no run is told in one line."""

import pytest

from cnnlab.allowed import RequestError
from cnnlab.runs.recorded import RunParser, find
from tests.recording import record


def refusal(*arguments: str) -> str:
    with pytest.raises(RequestError) as refused:
        find(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_run_is_found_by_folder_and_by_the_first_digits_of_its_id(tmp_path, monkeypatch):
    folder = record(tmp_path, "conv=decoupled_tanh", "conv.rho=2")
    record(tmp_path, "epochs=3")
    run = find(str(folder))
    assert run.folder == folder and run.config.tree["conv"]["rho"] == 2 and run.config.id == run.result.id
    for digits in (1, 4, 10):
        assert find(run.result.id[:digits], str(tmp_path)) == run
    monkeypatch.chdir(folder.parent)
    assert find(folder.name).config == run.config, "relative, with = and , in its name"


def test_digits_in_a_summary_are_not_an_id(tmp_path):
    folder = record(tmp_path, "name=a-0b")
    (folder.parent / "x-0b").mkdir()
    assert not folder.name.endswith("0b")
    assert refusal("0b", str(tmp_path)).startswith("0b: neither")


def test_an_id_of_several_runs_names_them_all(tmp_path):
    folders = [record(tmp_path, f"name={name}") for name in ("one", "two")]
    said = refusal(folders[0].name[-10:], str(tmp_path))
    assert said.endswith(f"2 runs have an id that begins so: {folders[0]}, {folders[1]}")


def test_a_run_kept_aside_is_found_by_its_folder_alone(tmp_path):
    folder = record(tmp_path)
    aside = folder.rename(folder.with_name(f"{folder.name}.1"))
    assert find(str(aside)).folder == aside
    refusal(aside.name[-12:-2], str(tmp_path))


@pytest.mark.parametrize("name", ["nope", "", "*", "0123456789ab", "a\nb", "[0-9]", "/dev/null"])
def test_what_is_no_run_is_refused(tmp_path, name):
    record(tmp_path)
    if name:
        refusal(name, str(tmp_path / "empty"))
    else:
        assert refusal(name, str(tmp_path)).endswith("no result.json, so no run"), "the current folder"


@pytest.mark.parametrize("missing", ["config.yaml", "result.json"])
def test_a_folder_without_one_of_its_files_is_no_run(tmp_path, missing):
    folder = record(tmp_path)
    (folder / missing).unlink()
    assert refusal(str(folder)) == f"{folder}: no {missing}, so no run"


@pytest.mark.parametrize("text", ["", "{", "- 1", "a: [1\n", "seed: ${nope}", "\x00"])
@pytest.mark.parametrize("broken", ["config.yaml", "result.json"])
def test_a_broken_file_is_named(tmp_path, broken, text):
    folder = record(tmp_path)
    (folder / broken).write_text(text)
    said = refusal(str(folder))
    assert said.startswith(f"{folder}: {broken} cannot be read"), said


def test_a_mistake_in_the_arguments_names_the_verb():
    with pytest.raises(RequestError, match=r"^diff: .*--foo"):
        RunParser("diff", "").parse_args(["--foo"])
