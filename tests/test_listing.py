"""`cnnlab list` shows what is in the folders, all of it, and quickly."""

import os
import pty
import re
import subprocess
import sys

import pytest
import yaml

from cnnlab.allowed import RequestError
from cnnlab.registry import CONF, available
from cnnlab.signature import signature
from cnnlab.verbs.listing import main

GROUPS = sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.glob("*/**/*.yaml")})
LIST = [
    sys.executable,
    "-c",
    "import sys; from cnnlab.verbs.listing import main; sys.exit(main(sys.argv[1:]))",
]


@pytest.fixture
def listed(capsys):
    def run(*argv):
        assert main(argv) == 0
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def mine(tmp_path):
    """A user's --config-dir with one group in it; the answer writes a word into that group."""

    def write(word: str, text: str, group: str = "optimizer") -> str:
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{word}.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path)

    return write


def test_groups_come_with_their_number_of_words_and_the_default(listed):
    defaults = {}
    for choice in yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]:
        defaults |= choice if isinstance(choice, dict) else {}
    lines = [line.split() for line in listed()]
    assert [line[0] for line in lines] == GROUPS
    for group, count, unit, *default in lines:
        assert int(count) == len(available(group))
        assert unit == ("word" if count == "1" else "words")
        assert default == [word for word in [defaults.get(group)] if word]


@pytest.mark.parametrize("group", GROUPS)
def test_each_word_is_one_line_off_a_terminal(listed, group):
    lines = [line.split("\t") for line in listed(group)]
    assert [word for word, *_ in lines] == available(group)
    for word, summary, knobs, *_ in lines:
        node = yaml.safe_load((CONF / group / f"{word}.yaml").read_text())
        if "_target_" in node:
            first = (CONF / group / f"{word}.yaml").read_text().splitlines()[0]
            own = first.removeprefix("# ") if first.startswith("#") else None
            assert summary == (own or signature(node["_target_"]).summary)
            assert [knob.partition("=")[0] for knob in knobs.split()] == [
                key for key in node if key != "_target_"
            ]
        assert summary


def test_data_sets_say_their_size_source_and_licence(listed):
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in listed("dataset")}
    assert set(lines) == set(available("dataset"))
    for *_, origin in lines.values():  # each of them says its licence
        assert re.search(r"Licence: \w.*\.$", origin)
        if origin != "Licence: that of your images.":
            assert origin.startswith("Source: ")
    assert lines["digits"][2].endswith("Licence: CC BY 4.0.") and "1797" in lines["digits"][0]
    assert lines["svhn"][2].endswith("Licence: for non-commercial use only.") and "73,257" in lines["svhn"][0]
    for group in ("conv", "loss"):  # whose sources are papers
        assert not any("Source:" in line for line in listed(group))


def test_knobs_are_written_as_the_command_line_takes_them(listed, mine):
    folder = mine(
        "odd",
        "_target_: torch.optim.Adam\nlr: 1.0e-3\nbetas: [0.9, [1, x]]\nfused: true\nbase: null\nbound: .inf\n"
        "empty: ''\nlabel: two words\nnest: {deep: {er: 1}, none: {}}\nmarkup: '[bold]'\n",
    )
    line = next(line for line in listed("optimizer", "-cd", folder) if line.startswith("odd"))
    assert line.split("\t")[2] == (
        "lr=0.001 betas=[0.9,[1,x]] fused=true base=null bound=inf "
        "empty='' label='two words' nest.deep.er=1 nest.none={} markup='[bold]'"
    )


def test_own_yamls_join_in(listed, mine):
    mine("zzz_mine", "lr: 1\n")
    folder = mine("first", "x: 1\n", group="brand_new")
    lines = listed("optimizer", f"--config-dir={folder}")
    assert [line.split("\t")[0] for line in lines] == [*available("optimizer"), "zzz_mine"]
    assert any(line.startswith("adam\tImplements Adam algorithm.") for line in lines)
    assert listed("brand_new", "-cd", folder) == ["first\t\tx=1"]
    assert any(line.split() == ["brand_new", "1", "word"] for line in listed("-cd", folder))


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("# @package _global_\n\n# A study of radii.\n# More.\nepochs: 3\n", "A study of radii."),
        ("#@package _global_\nepochs: 3\n# not at the top\n", ""),
        ("# Its own words.\n_target_: gone.away.X\n", "Its own words."),
        ("# Its own words.\n_target_: torch.optim.Adam\n", "Its own words."),
        ("_target_: torch.optim.Adam\n", "Implements Adam algorithm."),
        ("_target_: [not, a, path]\n", ""),
        ("# Größe ≠ 0\n", "Größe ≠ 0"),
        ("", ""),
    ],
)
def test_a_yaml_says_its_first_comment_else_what_its_class_says(listed, mine, text, summary):
    assert listed("study", "-cd", mine("one", text, group="study"))[0].split("\t")[1] == summary


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cnov"], r"list cnov: no such group, did you mean 'conv'\?"),
        (["qqqq"], r"list qqqq: no such group; there are activation, .*trainer"),
        ([".."], r"list \.\.: no such group; .*"),
        (["-cd", "/no/such/folder"], "--config-dir /no/such/folder: no such folder"),
        (["-cd"], "list: argument --config-dir/-cd: expected one argument"),
        (["conv", "loss"], "list: unrecognized arguments: loss"),
        (["--colour"], "list: unrecognized arguments: --colour"),
    ],
)
def test_a_wrong_request_is_one_line(argv, message):
    with pytest.raises(RequestError) as caught:
        main(argv)
    assert re.fullmatch(message, str(caught.value))


def test_an_own_yaml_cannot_take_the_name_of_a_word(mine):
    with pytest.raises(RequestError, match="optimizer=adam is a word of cnnlab already"):
        main(["optimizer", "-cd", mine("adam", "# another adam\n")])


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n", "a: \x00\n"])
def test_a_broken_yaml_is_named_in_one_line(mine, text):
    folder = mine("broken", text)
    with pytest.raises(RequestError, match=r"^/.*optimizer/broken\.yaml: [^\n]+$"):
        main(["optimizer", "-cd", folder])


def test_help_names_the_arguments(listed):
    assert {"GROUP", "--config-dir"} <= set(re.findall(r"GROUP|--config-dir", "\n".join(listed("--help"))))


def on_terminal(*argv: str) -> str:
    """What a terminal 80 columns wide shows."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen([*LIST, *argv], stdout=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).replace("\r", "")


def test_a_terminal_of_80_columns_shows_every_word_and_knob_whole(listed, mine):
    long = "_".join(["word"] * 6)
    folder = mine(long, "_target_: torch.optim.Adam\nlr: 1\nmarkup: [a, b]\n" + f"x{'y' * 90}: 1\n")
    shown = on_terminal("optimizer", "-cd", folder)
    assert max(map(len, shown.splitlines())) <= 80
    for line in listed("optimizer"):
        word, _, knobs = line.split("\t")
        assert {word, *knobs.split()} <= set(shown.split())
    assert {long, "markup=[a,b]"} <= set(shown.split())
    assert shown.count("y") >= 90
    assert "…" not in shown


def test_a_terminal_shows_source_and_licence_of_data():
    shown = " ".join(on_terminal("dataset").split())
    assert "Source: Xiao, Rasul & Vollgraf 2017, Fashion-MNIST. Licence: MIT. root=null" in shown


def test_listing_takes_half_a_second_and_no_torch():
    script = "import sys; from cnnlab.verbs.listing import main; main(['conv'])\n"
    script += "assert not {'torch', 'pytorch_lightning', 'hydra'} & set(sys.modules)"
    took = []
    for _ in range(3):
        began = os.times().children_user
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        took.append(os.times().children_user - began)
    assert min(took) < 0.5
