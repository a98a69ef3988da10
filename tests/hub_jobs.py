"""What tests of the hub do in processes of their own, which import no more than that takes."""

import contextlib
import io
import sys
from pathlib import Path

import torch

import cnnlab.verbs.repro
from cnnlab.allowed import RequestError
from cnnlab.build import SPLIT
from cnnlab.compose import Composer
from cnnlab.refusals import refusals
from cnnlab.registry import factory


def composed(lines):
    try:
        config = Composer().one(lines)
    except RequestError as error:
        return str(error)
    return config.id, config.tree["dataset"], config.values, config.overrides


def found(lines):
    try:
        config = Composer().one(lines)
        node = {knob: value for knob, value in config.tree["dataset"].items() if knob not in SPLIT}
        with refusals(config, "dataset"):
            return [file.read_bytes() for file in factory(node)().files()]
    except RequestError as error:
        return str(error)


def trained(lines):
    from cnnlab.train import train

    config = Composer().one(lines)
    result = train(config)
    assert result.status == "done", result.error
    weights = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    kept = {key: value for key, value in result.metrics.items() if not key.startswith("time/")}
    return config.id, kept, {key: value.tolist() for key, value in weights.items()}


def repro(run):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = cnnlab.verbs.repro.main([run])
    return code, printed.getvalue().splitlines()


def swept(lines):
    return len(Composer().sweep(lines))


def imports(lines):
    Composer().one(lines)
    return [name for name in ("huggingface_hub", "cnnlab.data.hub") if name in sys.modules]


def pinned_by(folder):
    sys.path.insert(0, folder)
    config = Composer(str(Path(folder, "mine"))).one(["dataset=mine", "trusted=[my_hub]"])
    return config.tree["dataset"]["revision"]
