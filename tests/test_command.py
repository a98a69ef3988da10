"""The command line as its users meet it: mistakes, help, listing, completion, their own YAML."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlab.__main__ import VERBS, command
from cnnlab.compose import Composer
from cnnlab.verbs.usage import USAGE

# Mistake -> what the line must begin with, and what it must contain.
MISTAKES = {
    "ortho_weight=-1": ("ortho_weight=-1: ", ">= 0"),
    "ortho_weight=nan": ("ortho_weight=nan: ", ">= 0"),
    "epochs=0": ("epochs=0: ", ">= 1"),
    "epochs=1.5": ("epochs=1.5: ", "whole number"),
    "batch_size=many": ("batch_size=many: ", "whole number >= 1"),
    "seed=null": ("seed=null: ", "whole number >= 0"),
    "threads=0": ("threads=0: ", ">= 1"),
    "resume=3": ("resume=3: ", "true or false"),
    "name=": ("name='': ", "word"),
    "name=../x": ("name=../x: ", "folder"),
    "seed=99999999999999999999999": ("seed=99999999999999999999999: ", "<="),
    "trusted=os": ("trusted=os: ", "[PACKAGE]"),
    "trainer.num_nodes=2": ("trainer=auto trainer.num_nodes=2: ", "1"),
    "trainer.max_steps=0": ("trainer=auto trainer.max_steps=0: ", ">= 1"),
    "trainer.limit_train_batches=0": ("trainer=auto trainer.limit_train_batches=0: ", "> 0"),
    "trainer.accumulate_grad_batches=0": ("trainer=auto trainer.accumulate_grad_batches=0: ", ">= 1"),
    "trainer.check_val_every_n_epoch=0": ("trainer=auto trainer.check_val_every_n_epoch=0: ", ">= 1"),
    "trainer.gradient_clip_val=-1": ("trainer=auto trainer.gradient_clip_val=-1: ", "> 0"),
    "trainer.gradient_clip_val=0": ("trainer=auto trainer.gradient_clip_val=0: ", "> 0"),
    "trainer.log_every_n_steps=-3": ("trainer=auto trainer.log_every_n_steps=-3: ", ">= 0"),
    "trainer.log_every_n_steps=1.5": ("trainer=auto trainer.log_every_n_steps=1.5: ", "whole number"),
    "trainer.strategy=fsdp": ("trainer=auto trainer.strategy=fsdp: ", "accelerator"),
    "trainer.val_check_interval=0.5": ("trainer.val_check_interval=0.5: ", "check_val_every_n_epoch"),
    "ortho_weight=inf regularizer.orthogonality=0.5": ("ortho_weight=inf: ", "regularizer.orthogonality"),
    "-m output_dir=/dev/null/x seed=0,1": ("output_dir=/dev/null/x: ", ""),
    "conv.kernel_size=5": ("conv=standard conv.kernel_size=5: ", "not free"),
    "model=linear conv=decoupled_tanh conv.rho=-1": ("conv=decoupled_tanh conv.rho=-1: ", "> 0"),
    "optimizer.betas=[0.9]": ("optimizer=adam optimizer.betas=[0.9]: ", ""),
    "optimizer.betas=[2,3]": ("optimizer=adam optimizer.betas=[2,3]: ", "2"),
    "experiment=null": ("experiment=null: ", "experiment=WORD"),
    "trusted=3": ("trusted=3: ", "word"),
    "optimizer.lr=-3": ("optimizer=adam optimizer.lr=-3: ", "> 0"),
    "optimizer.lr=${nope}": ("optimizer=adam optimizer.lr", "nope"),
    "dataset.split_seed=-1": ("dataset=digits dataset.split_seed=-1: ", ">= 0"),
    "trainer.devices=2": ("trainer=auto trainer.devices=2: ", "1"),
    "trainer.max_epochs=3": ("trainer.max_epochs=3: ", "epochs"),
    "trainer.max_stepz=3": ("trainer=auto trainer.max_stepz=3: ", "'trainer.max_steps'"),
    "conv._target_=os.system": ("conv=standard conv._target_=os.system: ", "trusted"),
    "conv._target_=builtins.eval": ("conv=standard conv._target_=builtins.eval: ", "trusted"),
    "conv=decoupled_tan": ("conv=decoupled_tan: ", "'decoupled_tanh'"),
    "conv.rho=1": ("conv=standard conv.rho=1: ", "decoupled_tanh"),
    "conv=null": ("conv=null: ", "conv=WORD"),
    "conv=[standard]": ("conv=[standard]: ", "conv=WORD"),
    "conv@x=standard": ("conv@x=standard: ", "conv=WORD"),
    "model={a:1}": ("model={a:1}: ", "model=WORD"),
    "epoch=3": ("epoch=3: ", "'epochs'"),
    "lr=0.1": ("lr=0.1: ", "'optimizer.lr'"),
    "+foo=1": ("foo=1: ", "no such key"),
    "~conv": ("~conv: ", "not deleted"),
    "lst": ("lst: ", "'list'"),
    "epochs=1,2": ("epochs=1,2: ", "-m"),
    "--config-dir=/nope": ("--config-dir /nope: ", "no such folder"),
    "--foo": ("", "--foo"),
    "--cfg=foo": ("", "'job'"),
    "hydra.foo=1": ("", "hydra.foo"),
    "optimizer.betas=[1": ("optimizer.betas=[1: ", "as a text it is optimizer.betas='\"[1\"'"),
    "ortho_weight=inf conv=decoupled_tanh": ("ortho_weight=inf: ", "conv=decoupled_tanh"),
    "-m seed=0,x": ("seed=x: ", "whole number"),
    "-m conv=standard,nope": ("conv=nope: ", "no such conv"),
    "-m conv=standard conv.rho=1,2": ("conv=standard conv.rho=1: ", "no rho"),
    "list optimiser": ("list optimiser: ", "'optimizer'"),
    # What only a constructor knows:
    "conv=decoupled_tanh conv.rho=-1": ("conv=decoupled_tanh conv.rho=-1: ", "> 0"),
    "conv=decoupled_tanh conv.rho=abc": ("conv=decoupled_tanh conv.rho=abc: ", "> 0"),
    "conv=decoupled_tanh conv.angular=cosin": ("conv=decoupled_tanh conv.angular=cosin: ", "'cosine'"),
    "conv=orthogonal conv.bias_row=firs": ("conv=orthogonal conv.bias_row=firs: ", "'first'"),
    "conv.groups=3": ("conv=standard conv.groups=3: ", "divisible"),
    "optimizer.weight_decay=-1": ("optimizer=adam optimizer.weight_decay=-1: ", "-1"),
    "model.filters=[0]": ("model=convnet model.filters=[0]: ", ">= 1"),
    "model.filters=3": ("model=convnet model.filters=3: ", "list"),
    "model=singla": ("model=singla: ", "10x10"),
    "activation=maxout activation.k=5": ("activation=maxout activation.k=5: ", "5"),
    "regularizer.l2=-1": ("regularizer=penalties regularizer.l2=-1: ", ">= 0"),
    "regularizer.orthogonality=inf": ("regularizer=penalties regularizer.orthogonality=inf: ", "finite"),
    "schedule=step schedule.gamma=0": ("schedule=step schedule.gamma=0: ", "> 0"),
    "dataset=fashion_mnist dataset.root=/nope": ("dataset=fashion_mnist dataset.root=/nope: ", "/nope"),
    "dataset=hub": ("dataset=hub dataset.path=null: ", "folder"),
    "trainer=gpu": ("trainer=gpu", "gpu"),
    "trainer.precision=17": ("trainer=auto trainer.precision=17: ", "17"),
    "loss.label_smoothing=2": ("loss=cross_entropy loss.label_smoothing=2: ", ">= 0 and <= 1"),
    "output_dir=/dev/null/x": ("output_dir=/dev/null/x: ", ""),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    start, content = MISTAKES[line]
    arguments = line.split(" ")
    assert command(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(start), err
    assert content in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], (
        "a refused request leaves nothing behind"
    )


@pytest.mark.parametrize("value", ["[1", "{'a': 1}", 'say "x', "a $HOME ' \"b", "back\\slash="])
def test_the_quotes_that_are_advised_survive_a_shell(value, capsys):
    assert command([f"output_dir={value}", "--cfg", "job"]) == 2
    advised = capsys.readouterr().err.rstrip("\n").partition("as a text it is ")[2]
    (line,) = shlex.split(advised)
    assert Composer().one([line]).tree["output_dir"] == value


def cli(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cnnlab", *arguments], capture_output=True, text=True, timeout=120, **kwargs
    )


def seconds(*arguments: str) -> float:
    """What Python takes of the processor, the least of three: the machine may be busy with other tests."""
    times = []
    for _ in range(3):
        began = os.times().children_user
        subprocess.run([sys.executable, *arguments], capture_output=True)
        times.append(os.times().children_user - began)
    return min(times)


@pytest.mark.parametrize("line", ["--help", "conv=decoupled_tan"])
def test_help_and_the_answer_to_a_mistyped_word_come_at_once(line):
    """Against what they can't do without, on this machine; torch would be ten of that."""
    assert seconds("-m", "cnnlab", line) < 3 * seconds("-c", "import hydra.main")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "conv"], ["--cfg", "job"], ["conv=nope"]]
)
def test_torch_is_not_imported_before_a_run(arguments):
    code = (
        "import sys; from cnnlab.__main__ import command;"
        f"command({arguments!r});"
        "sys.exit(bool({'torch', 'pytorch_lightning', 'wandb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_help_fits_a_terminal_of_80_columns():
    shown = cli("--help").stdout
    assert "conv=decoupled_tanh" in shown and "ortho_weight" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_help_names_every_verb_and_no_other():
    shown = re.findall(r"^  cnnlab \[?([a-z]+)\b", USAGE, re.MULTILINE)
    assert [verb for verb in shown if verb != "conv"] == list(VERBS)


def test_the_version_is_cnnlabs():
    import cnnlab

    assert cli("--version").stdout == f"cnnlab {cnnlab.__version__}\n"


def test_cfg_job_prints_the_configuration_with_extra_arguments():
    done = cli("conv=decoupled_tanh", "conv.rho=2", "trainer.max_steps=3", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "rho: 2\n" in done.stdout and "max_steps: 3\n" in done.stdout


@pytest.mark.parametrize("line", ["cnnlab conv=decoupled_ta", "cnnlab train conv=decoupled_ta"])
def test_completion_knows_words_with_and_without_a_verb(line):
    shown = cli(
        "-sc", "query=bash", env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    ).stdout
    assert shown.split() == ["conv=decoupled_tanh"]


def test_completion_can_be_installed():
    assert "complete -o nospace" in cli("-sc", "install=bash").stdout


MINE = """
import torch


class MyConv2d(torch.nn.Conv2d):
    '''Conv2d scaled by a knob.'''

    def __init__(self, *args, scale: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        if scale <= 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.scale = scale

    def forward(self, input):
        return super().forward(input) * self.scale
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A user's package and YAML folder."""
    (tmp_path / "theirs.py").write_text(MINE)
    (tmp_path / "yaml" / "conv").mkdir(parents=True)
    (tmp_path / "yaml" / "conv" / "mine.yaml").write_text("_target_: theirs.MyConv2d\nscale: 2.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_users_own_class_and_yaml_train_once_trusted(own_folder):
    line = ["--config-dir", "yaml", "conv=mine", "logger=none", "epochs=1", "trainer.max_steps=2"]
    refused = cli(*line)
    assert refused.returncode == 2 and refused.stderr.startswith("conv=mine conv._target_=theirs.MyConv2d: ")
    assert refused.stderr.count("\n") == 1
    wrong = cli(*line, "trusted=[theirs]", "conv.scale=-1")
    assert wrong.returncode == 2 and wrong.stderr == "conv=mine conv.scale=-1: must be > 0, got -1\n"
    done = cli(*line, "trusted=[theirs]")
    assert done.returncode == 0, done.stderr
    result = json.loads(next(Path("outputs").rglob("result.json")).read_text())
    assert result["choices"]["conv"] == "mine" and "theirs.MyConv2d" in result["sources"]


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n", "", "scale: 1\n"])
def test_a_users_broken_yaml_is_one_line(own_folder, text, capsys):
    (own_folder / "yaml" / "conv" / "mine.yaml").write_text(text)
    assert command(["--config-dir", "yaml", "conv=mine"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_users_folder_cannot_replace_the_root(own_folder, capsys):
    (own_folder / "yaml" / "config.yaml").write_text("epochs: 1\n")
    assert command(["--config-dir", "yaml"]) == 2
    assert "config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["conv/standard", "hydra/launcher/local", "hydra/sweeper/search"])
def test_a_users_folder_cannot_replace_a_word_however_deep(own_folder, path, capsys):
    mine = own_folder / "yaml" / f"{path}.yaml"
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("_target_: theirs.MyConv2d\n")
    assert command(["--config-dir", "yaml"]) == 2
    group, _, word = path.rpartition("/")
    said = f"--config-dir yaml: {path}.yaml: {group}={word} is a word of cnnlab already\n"
    assert capsys.readouterr().err == said


def test_list_shows_a_users_own_words(own_folder):
    shown = cli("list", "conv", "--config-dir", "yaml").stdout
    assert "mine" in shown and "Conv2d scaled by a knob." in shown and "scale=2.0" in shown


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m cnnlab list conv | head -c 1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""
