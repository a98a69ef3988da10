"""`cnnlab bench` as its users meet it: counts that are torch's, rows for all, requests judged at once."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.bench.command import main
from tests import isolated

QUICK = ("threads=1", "trainer=cpu", "trainer.precision=32", "batch_size=2", "--repeats", "1")
LAYER = ("--shape", "4,8,3,8")

# Variants of a user: wrong counts, a failure, a refusal, twice the cost of nn.Conv2d, Ctrl-C.
MINE = """
from torch import nn
from cnnlab.conv.standard import StandardConv2d

class Miscounting(StandardConv2d):
    def macs(self, input_hw):
        return super().macs(input_hw) + 1

class Failing(StandardConv2d):
    def forward(self, x):
        raise RuntimeError("out of luck")

class Refusing(StandardConv2d):
    def __init__(self, *args, **kwargs):
        raise NotImplementedError("RefusingConv2d: kernel_size must be 7, got 3")

class Twice(StandardConv2d):
    def macs(self, input_hw):
        return 2 * super().macs(input_hw)

    def forward(self, x):
        return super().forward(x) + super().forward(-x)

class Interrupted(StandardConv2d):
    def forward(self, x):
        raise KeyboardInterrupt
"""


class Answer(NamedTuple):
    code: int
    out: list[str]
    err: list[str]
    rows: list[dict[str, Any]]

    @property
    def by_variant(self) -> dict[str, dict[str, Any]]:
        return {row["variant"]: row for row in self.rows}


def _bench(folder: str, lines: tuple[str, ...]) -> tuple[int, str, str]:
    from cnnlab.__main__ import command

    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = command(["bench", *lines])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def run(tmp_path):
    """Measure in a process of its own."""

    def run(*lines: str, save: str = "table.json") -> Answer:
        path = tmp_path / save
        code, out, err = isolated.run(_bench, str(tmp_path), (*lines, "--save", str(path)))
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        return Answer(code, out.splitlines(), err.splitlines(), rows)

    return run


@pytest.fixture
def mine(tmp_path) -> tuple[str, ...]:
    """The flags that bring a user's variants in."""
    (tmp_path / "my_variants.py").write_text(MINE)
    (tmp_path / "conf" / "conv").mkdir(parents=True)
    for name in re.findall(r"class (\w+)", MINE):
        word = tmp_path / "conf" / "conv" / f"{name.lower()}.yaml"
        word.write_text(f"_target_: my_variants.{name}\n")
    return "trusted=[my_variants]", "--config-dir", str(tmp_path / "conf")


def test_every_word_is_measured_and_counts_as_torch_does(run):
    answer = run("conv=glob(*)", *QUICK, *LAYER)
    told = [(row["variant"], row["refused"] or row["failed"] or "") for row in answer.rows]
    assert told == [(word, "") for word in cnnlab.available("conv")]
    for row in answer.rows:
        assert row["macs_by_torch"] in (None, row["macs"]), row["variant"]
        for ratio in (row["forward"], row["step"]):
            assert 0 < ratio[0] <= ratio[1] <= ratio[2], row["variant"]
        assert row["state_bytes"] >= row["param_bytes"] >= 4 * row["params"] >= 4, row["variant"]
    assert answer.code == 0
    assert [line.split("\t")[0] for line in answer.out] == ["variant", *cnnlab.available("conv")]


# Counts by hand: bench lines -> parameters, MACs of one image, groups.
BY_HAND = {
    "conv=standard": (128 * (64 * 9 + 1), 1024 * 128 * 64 * 9, 1),
    "conv=standard conv.bias=false": (128 * 64 * 9, 1024 * 128 * 64 * 9, 1),
    "conv=standard conv.stride=2 conv.padding=1": (128 * (64 * 9 + 1), 256 * 128 * 64 * 9, 1),
    "conv=grouped conv.groups=4": (128 * (16 * 9 + 1), 1024 * 128 * 16 * 9, 4),
    "conv=grouped conv.groups=3 --shape 64,128,1,32": (128 * (64 + 1), 1024 * 128 * 64, 1),  # gcd
    "conv=depthwise_separable": (64 * 9 + 128 * 64 + 128, 1024 * (64 * 9 + 128 * 64), None),
    "conv=shufflenet_unit conv.groups=3 conv.bottleneck=0.25 --shape 240,240,3,28": (None, 7_949_760, 3),
    "model=convnet --shape 1,8,8": (
        67_562,
        64 * 32 * 9 + 64 * 32 * 32 * 9 + 16 * 64 * 32 * 9 + 16 * 64 * 64 * 9 + 256 * 10,
        None,
    ),
    "model=alexnet --shape 3,227,227 --classes 1000 batch_size=1": (None, 724_406_816, None),
}


def known(lines: str) -> bool:
    group, word = lines.split()[0].split("=")
    return word in cnnlab.available(group)


@pytest.mark.parametrize("lines", filter(known, BY_HAND))
def test_counts_are_those_made_by_hand(run, lines):
    answer = run(*QUICK, *lines.split())
    assert answer.code == 0, answer.err
    (row,) = answer.rows
    for name, expected in zip(("params", "macs", "groups"), BY_HAND[lines], strict=True):
        assert expected is None or row[name] == expected, name


def test_times_are_multiples_of_conv2d(run, mine):
    answer = run("conv=standard,twice", *mine, *QUICK[:-1], "9", "--shape", "16,32,3,32", "batch_size=8")
    rows = answer.by_variant
    for time in ("forward", "step"):
        assert rows["standard"][time][1] == pytest.approx(1, abs=0.25)
        assert 1.5 < rows["twice"][time][1] < 4
    assert rows["twice"]["macs"] == rows["twice"]["macs_by_torch"] == 2 * rows["standard"]["macs"]
    assert rows["twice"]["peak_bytes"] > rows["standard"]["peak_bytes"] > 0
    assert answer.code == 0


def test_the_baseline_has_the_stride_of_the_variant(run):
    lines = "conv=standard", "conv.stride=4", "conv.padding=1", "--shape", "16,32,3,64"
    (row,) = run(*QUICK[:-1], "5", *lines).rows
    assert row["step"][1] == pytest.approx(1, abs=0.3)


def test_wrong_counts_and_failures_are_told_and_the_others_go_on(run, mine):
    answer = run("conv=miscounting,failing,refusing,standard", *mine, *QUICK, *LAYER)
    rows = answer.by_variant
    assert answer.code == 1
    assert rows["miscounting"]["macs"] == rows["miscounting"]["macs_by_torch"] + 1 == 18_433
    assert "miscounting 4,8,3,8: macs() says 18,433, torch counts 18,432" in answer.err
    assert rows["failing"]["failed"] == "conv=failing: out of luck"
    assert "failing 4,8,3,8: conv=failing: out of luck" in answer.err
    assert "RefusingConv2d: kernel_size must be 7, got 3" in rows["refusing"]["refused"]
    assert rows["standard"]["forward"] is not None


def test_a_refusal_among_others_is_no_failure_but_alone_it_is_a_wrong_request(run, mine):
    answer = run("conv=refusing,standard", *mine, *QUICK, *LAYER)
    assert (answer.code, len(answer.rows)) == (0, 2)
    answer = run("conv=refusing", *mine, *QUICK, *LAYER, save="none.json")
    assert (answer.code, answer.rows) == (2, [])
    assert answer.err == ["conv=refusing: RefusingConv2d: kernel_size must be 7, got 3"]


def test_an_interruption_keeps_what_is_measured(run, mine, tmp_path):
    answer = run("conv=standard,interrupted,twice", *mine, *QUICK, *LAYER)
    assert answer.code == 130
    assert [row["variant"] for row in answer.rows] == ["standard"]
    assert answer.err == [str(tmp_path / "table.json")]
    assert [line.split("\t")[0] for line in answer.out] == ["variant", "standard"]


def test_shapes_precisions_and_batches_make_rows_grouped_by_what_is_comparable(run):
    sweep = "trainer.precision=32,bf16-mixed", "batch_size=1,2", "conv=standard,orthogonal"
    answer = run(*QUICK, *sweep, *LAYER, "--shape", "2,2,1,4")
    settings = [(row["shape"], row["precision"], row["batch_size"]) for row in answer.rows]
    assert len(settings) == 16 and len({*settings}) == 8
    assert settings[::2] == settings[1::2]
    assert {row["device"] for row in answer.rows} == {"cpu"}
    assert [row["variant"] for row in answer.rows] == 8 * ["standard", "orthogonal"]


def test_a_variant_is_told_by_its_word_and_what_is_not_its_default(run):
    layers = run("conv=decoupled_tanh", "conv.rho=1,2", *QUICK, *LAYER)
    assert [*layers.by_variant] == ["decoupled_tanh", "decoupled_tanh rho=2"]
    nets = run("model=convnet", "model.filters=[4]", "conv=orthogonal", *QUICK, "--shape", "1,8,8")
    assert [*nets.by_variant] == ["convnet conv=orthogonal filters=[4]"]


def test_a_table_is_compared_with_an_earlier_one(run, tmp_path):
    run("conv=standard,orthogonal", *QUICK, *LAYER, save="old.json")
    content = json.loads((tmp_path / "old.json").read_text())
    old = {row["variant"]: row for row in content["rows"]}
    old["standard"]["macs"] //= 2
    old["orthogonal"]["step"] = [1e6, 2e6, 3e6]
    (tmp_path / "old.json").write_text(json.dumps(content))
    answer = run("conv=standard,flipped,orthogonal", *QUICK, *LAYER, "--against", str(tmp_path / "old.json"))
    cells = [line.split("\t") for line in answer.out[answer.out.index("") + 1 :]]
    rows = {line[0]: dict(zip(cells[0], line, strict=True)) for line in cells[1:]}
    assert rows.keys() == {"standard", "orthogonal"} < {*answer.by_variant}
    assert rows["standard"]["MACs"] == "2.00"
    assert "MACs 9,216 -> 18,432" in rows["standard"]["differences"]
    assert rows["orthogonal"]["fwd+bwd"] == "0.00"
    assert "fwd+bwd faster" in rows["orthogonal"]["differences"]


def test_the_file_says_on_what_machine_and_lies_in_output_dir(tmp_path):
    lines = "conv=standard", *QUICK, *LAYER, f"output_dir={tmp_path / 'out'}"
    code, _, err = isolated.run(_bench, str(tmp_path), lines)
    (path,) = (tmp_path / "out" / "bench").iterdir()
    assert (code, err) == (0, f"{path}\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z\.json", path.name)
    table = json.loads(path.read_text())
    assert table["machine"].keys() == {"cpu", "cores", "torch", "git"} and table["machine"]["cpu"]
    assert table["rows"][0]["threads"] == 1


REFUSED = {
    "optimizer=sgd": "optimizer=sgd: bench has no use for optimizer",
    "epochs=3": "epochs=3: bench has no use for epochs",
    "seed=1,2": "seed=1,2: bench has no use for seed",
    "model=linear ortho_weight=1": "ortho_weight=1: bench has no use for ortho_weight",
    "trainer.max_steps=3": "trainer.max_steps=3: bench has no use for trainer.max_steps",
    "experiment=singla": "experiment=singla: bench has no use for experiment",
    "hydra.run.dir=x": "hydra.run.dir=x: bench has no use for hydra.run.dir",
    "activation=relu": "activation=relu: bench has no use for activation; model=WORD measures a network",
    "bach_size=3": "bach_size=3: no such key, did you mean 'batch_size'?",
    "conv=standrad": "conv=standrad: no such conv, did you mean 'standard'?",
    "batch_size=0": "batch_size=0: must be a whole number >= 1, got 0",
    "conv": "conv: neither a verb nor KEY=VALUE",
    "--shape 3,3,3": "--shape 3,3,3: must be IN,OUT,KERNEL,SIZE; model=WORD measures a network",
    "model=linear --shape 3,3,3,3": "--shape 3,3,3,3: must be C,H,W",
    "--shape 3,x,3,3": "bench: argument --shape: must be a whole number >= 1, got x",
    "--shape 3,,3,3": "bench: argument --shape: must be a whole number >= 1, got ",
    "--shape 3": "bench: argument --shape: must be IN,OUT,KERNEL,SIZE or C,H,W, got 3",
    "--repeats 0": "bench: argument --repeats: must be a whole number >= 1, got 0",
    "--classes 3": "--classes 3: a layer has none; model=WORD measures a network",
    "--shap": "bench: argument --shape: expected one argument",
    "-m conv=standard": "bench: unrecognized arguments: -m",
    "--against /nope.json": "/nope.json: No such file or directory",
    "--save /dev/null/x": "/dev/null/x: File exists",
    "--save /": "/: not a file that can be written",
    "output_dir=a,b": "output_dir: must be one, since one table is saved",
    "--config-dir /nope": "--config-dir /nope: no such folder",
}


@pytest.mark.parametrize("lines", REFUSED)
def test_a_wrong_request_is_one_line(lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as caught:
        main(lines.split())
    assert str(caught.value) == REFUSED[lines]
    assert list(Path().iterdir()) == []


def test_a_request_is_judged_before_torch_is_imported():
    script = """
import sys
from cnnlab.allowed import RequestError
from cnnlab.bench.command import main
try:
    main(["conv=glob(*)", "epochs=3"])
except RequestError:
    assert not {"torch", "pytorch_lightning"} & set(sys.modules)
    print("judged")
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "judged\n"


def test_help_tells_the_flags_and_the_method(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert {"--shape", "--classes", "--repeats", "--save", "--against", "--config-dir"} <= {*shown.split()}
    assert "channels_last" in shown and "Exit code" in shown
    assert max(map(len, shown.splitlines())) <= 80
