"""evaluate: a run's metrics come out of its folder again, to the bit; what does not is told."""

import re
import signal
import subprocess
import sys

import pytest
import torch

from cnnlab import trainer
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.data.images import ImageData
from cnnlab.result import Result
from cnnlab.runs.recorded import find
from cnnlab.task.classify import Classify
from cnnlab.train import train
from cnnlab.verbs.evaluate import main, recomputed
from tests.recording import record

QUICK = ["logger=none", "epochs=1", "batch_size=128", "threads=1"]
SMALL = ["model.filters=[8]"]


@pytest.fixture(autouse=True)
def threads_as_before():
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def trained(tmp_path, *lines):
    small = [] if any(line.startswith("model=") for line in lines) else SMALL
    config = Composer().one([*QUICK, *small, f"output_dir={tmp_path}", *lines])
    result = train(config)
    assert result.status == "done", result.error
    return config.folder


def files(folder):
    """What evaluate must not touch; it draws pictures into a run's folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.parametrize(
    "lines",
    [
        ["conv=decoupled_tanh", "conv.learnable_rho=true", "epochs=3", "optimizer.lr=0.05"],
        ["model.batch_norm=true", "model.dropout=0.5", "augmentation=crop_flip"],
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-true"],
        ["conv=shuffled_grouped", "match=params", "model.filters=[8,16]"],
        ["conv=kmeans", "preprocessing=unit_range"],
        ["ortho_weight=inf", "dataset.split_seed=3"],
        ["trainer.check_val_every_n_epoch=5", "trainer.limit_val_batches=1"],
        ["loss.label_smoothing=0.1", "activation=maxout", "seed=4"],
    ],
    ids=" ".join,
)
def test_the_metrics_of_a_run_come_out_again_to_the_bit(tmp_path, capsys, lines):
    folder = trained(tmp_path, *lines)
    before = files(tmp_path)
    assert main([str(folder)]) == 0
    assert files(tmp_path) == before, "it writes nothing but pictures"
    recorded = {k: v for k, v in Result.read(folder).metrics.items() if k.startswith(("val/", "test/"))}
    assert recomputed(find(str(folder))) == recorded and len(recorded) == 4
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows[0][0] == folder.name[-10:] and [row[-1] for row in rows] == ["same"] * 4


def test_threads_and_precision_are_those_of_the_run_not_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "best_precision", lambda accelerator: "32-true")
    folder = trained(tmp_path, "threads=2")
    monkeypatch.setattr(trainer, "best_precision", lambda accelerator: "bf16-mixed")
    torch.set_num_threads(1)
    run = find(str(folder))
    assert run.config.tree["trainer"]["precision"] == "auto" and run.result.precision == "32-true"
    assert recomputed(run).items() <= run.result.metrics.items()
    assert torch.get_num_threads() == 2


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"))


def test_other_weights_are_told_with_what_may_explain_them(plain, tmp_path, capsys):
    folder = plain.parent.parent / "default" / "changed-0123456789"
    folder.mkdir()
    for path in plain.rglob("*"):
        if path.is_file() and path.name != "lock":
            (folder / path.relative_to(plain)).parent.mkdir(exist_ok=True)
            (folder / path.relative_to(plain)).write_bytes(path.read_bytes())
    best = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    for name in checkpoint["state_dict"]:
        if name.endswith("bias"):
            checkpoint["state_dict"][name] += 0.5
    torch.save(checkpoint, best)
    result = Result.read(folder)
    result.versions["torch"], result.device = "1.0.0", "cuda:0"
    result.write(folder)

    assert main([str(plain), str(folder)]) == 1
    shown = capsys.readouterr().out
    assert re.search(rf"val/loss +{result.metrics['val/loss']:.6g} +\d\.\d+ +[+-]\d", shown)
    assert f"{result.id} device: cuda:0 then, cpu now" in shown
    assert f"{result.id} torch: 1.0.0 then, {torch.__version__} now" in shown
    assert shown.count(" then, ") == 2, "nothing else has changed"
    assert main([str(folder), "--tolerance", "100"]) == 0
    assert "same" not in capsys.readouterr().out


def test_a_metric_that_is_not_recorded_differs(plain, tmp_path, capsys):
    result = Result.read(plain)
    kept = dict(result.metrics)
    del result.metrics["test/loss"]
    result.write(plain)
    try:
        assert main([str(plain), "--tolerance", "inf"]) == 1
    finally:
        result.metrics = kept
        result.write(plain)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "test/loss" in line)
    assert line.split()[1] == "-"


def test_missing_data_cost_one_line_and_the_other_runs_are_evaluated(plain, tmp_path, capsys):
    lost = record(tmp_path, "dataset=fashion_mnist", f"dataset.root={tmp_path}/gone")
    (lost / "checkpoints").mkdir()
    (lost / "checkpoints" / "best.ckpt").write_bytes((plain / "checkpoints" / "best.ckpt").read_bytes())
    assert main([str(lost), str(plain)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"dataset=fashion_mnist dataset.root={tmp_path}/gone: ") and err.count("\n") == 1
    assert out.count("same") == 4


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04torn"])
def test_a_broken_checkpoint_is_one_line(tmp_path, capsys, content):
    folder = record(tmp_path)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_bytes(content)
    assert main([str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{folder}/checkpoints/best.ckpt: ") and err.count("\n") == 1


def test_weights_of_another_network_are_one_line(plain, tmp_path, capsys):
    folder = record(tmp_path, "model.filters=[4]")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_bytes((plain / "checkpoints" / "best.ckpt").read_bytes())
    assert main([str(folder)]) == 2
    err = capsys.readouterr().err
    assert "size mismatch" in err and err.count("\n") == 1


def test_data_that_have_changed_are_one_line(plain, capsys, monkeypatch):
    monkeypatch.setattr(ImageData, "val_dataloader", lambda self: [(torch.zeros(2, 3, 8, 8), torch.zeros(2))])
    assert main([str(plain)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{plain}/checkpoints/best.ckpt: ") and err.count("\n") == 1


def test_ctrl_c_is_no_verdict(plain, monkeypatch):
    def interrupted(*batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classify, "test_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        main([str(plain)])
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_a_run_that_is_not_done_is_refused(tmp_path, status):
    folder = record(tmp_path, status=status)
    with pytest.raises(RequestError, match=f"must be done to be evaluated, its status is {status}"):
        main([str(folder)])


MINE = """
import torch


class Mine(torch.nn.Conv2d):
    '''Mine.'''
"""


def test_classes_from_outside_are_built_only_if_they_are_trusted(tmp_path, monkeypatch, capsys):
    (tmp_path / "outsiders.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    folder = trained(tmp_path, "conv._target_=outsiders.Mine", "trusted=[outsiders]")
    assert main([str(folder)]) == 2
    err = capsys.readouterr().err
    assert "outsiders.Mine" in err and "may be built" in err and err.count("\n") == 1
    assert main([str(folder), "trusted=[outsiders]"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "evaluate: takes one RUN or more"),
        (["trusted=[x]"], "evaluate: takes one RUN or more"),
        (["x", "trusted=3"], "trusted=3: must be a list"),
        (["x", "--tolerance", "-1"], "--tolerance: must be a number >= 0, got -1"),
        (["x", "--tolerance", "nan"], "--tolerance: must be a number >= 0, got nan"),
        (["x", "--tolerance=abc"], "--tolerance: must be a number >= 0, got abc"),
        (["/nope"], "/nope: neither a folder nor an id"),
    ],
)
def test_a_mistake_gets_one_line(arguments, said):
    with pytest.raises(RequestError) as refused:
        main(arguments)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_help_comes_without_torch():
    code = "import sys; from cnnlab.verbs.evaluate import main; main(['--help']); "
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "best.ckpt" in done.stdout
