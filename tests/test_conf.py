"""Every YAML of conf/ composes, and those that decide how a run goes run whole on tiny data."""

import gzip
import io

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlab.compose import Composer
from cnnlab.registry import CONF
from cnnlab.train import train
from tests import test_cifar, test_svhn

YAMLS = sorted(CONF.glob("*/*.yaml"))
TINY = ["model.filters=[4]", "epochs=1", "batch_size=16", "trainer.max_steps=1"]
GROUPS = ("dataset", "logger", "trainer", "experiment", "averaging", "momentum", "monitor", "initializer")
RUNS = [path for path in YAMLS if path.parent.name in GROUPS]


def line(path):
    return f"{path.parent.name}={path.stem}"


@pytest.mark.parametrize("path", YAMLS, ids=line)
def test_every_yaml_composes(path):
    config = Composer().one([line(path)])
    assert config.choices[path.parent.name] == path.stem


WHERE = {"hub": "dataset.path", "digits": None, "digit_chains": None}  # the others have dataset.root


@pytest.fixture
def tiny_data(tmp_path, monkeypatch):
    """Twenty images in idx files, in parquet, in folders; as many in the forms of CIFAR and SVHN."""
    labels = (np.arange(20) % 10).astype(np.uint8)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12), dtype=np.uint8)
    for name in ("train", "t10k"):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4) for size in array.shape)
            (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    png = [io.BytesIO() for _ in pixels]
    for file, image in zip(png, pixels, strict=True):
        Image.fromarray(image).save(file, "PNG")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    rows = {"image": [{"bytes": f.getvalue(), "path": None} for f in png], "label": labels.tolist()}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    for number, (file, label) in enumerate(zip(png, labels, strict=True)):
        place = tmp_path / "train" / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(file.getvalue())
    for word in ("cifar10", "cifar100"):
        version, files, _ = test_cifar.written(word, form=0, count=20)
        (tmp_path / version.folder).mkdir()
        for name, data in files.items():
            (tmp_path / version.folder / name).write_bytes(data)
    test_svhn.written(tmp_path, monkeypatch, counts=(20, 4))
    return tmp_path


@pytest.mark.parametrize("path", RUNS, ids=line)
def test_every_way_to_run_runs(path, tiny_data, tmp_path):
    if line(path) == "trainer=gpu" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    dataset = Composer().one([line(path)]).choices["dataset"]
    where = WHERE.get(dataset, "dataset.root")
    lines = [line(path), *([f"{where}={tiny_data}"] if where else []), f"output_dir={tmp_path / 'out'}"]
    if path.parent.name == "momentum":
        lines.append("optimizer=momentum")
    lines += [*TINY, *(["logger=none"] if path.parent.name != "logger" else [])]
    if dataset == "digit_chains":
        lines.append("loss=structured_hinge")
    if path.parent.name == "experiment":
        lines.remove("model.filters=[4]")
    result = train(Composer().one(lines))
    assert result.status == "done", result.error
    assert 0 <= result.metrics["test/accuracy"] <= 1
