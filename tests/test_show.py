"""`cnnlab show`: the picture holds what training sees, and one line says what can't be drawn."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlab.allowed import RequestError
from cnnlab.build import build_data
from cnnlab.compose import Composer
from cnnlab.monitor.filters import GAP
from cnnlab.randomness import StepSeed
from cnnlab.verbs.show import COLUMNS, LINE, MARGIN, ROWS, SIDE, changes, figures, main, named, picture, seen

FLIPPED = ["augmentation=flip", "augmentation.p=1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts(*overrides):
    config = Composer().one([*overrides, "logger=none"])
    data = build_data(config)
    return data, *changes(config, data)


def tile(sheet: np.ndarray, row: int, column: int, block: int = 0) -> np.ndarray:
    """The middles of the 8x8 pixels of an image of digits, in a picture of SIDE-wide tiles."""
    step = SIDE + GAP
    top = block * (LINE + len(ROWS) * step + GAP) + LINE + GAP + row * step
    left = MARGIN + GAP + column * step
    cell = SIDE // 8
    return sheet[top : top + SIDE, left : left + SIDE][cell // 2 :: cell, cell // 2 :: cell]


def test_rows_are_original_augmented_and_preprocessed(elsewhere, capsys):
    assert main([*FLIPPED, "preprocessing=unit_range", "--images", "10", "--output", "x.png"]) == 0
    assert [path.name for path in elsewhere.iterdir()] == ["x.png"]
    sheet = np.asarray(Image.open("x.png"))
    data, *_ = parts()
    images = next(iter(data.train_dataloader()))[0][:10, 0].numpy()
    for number, image in enumerate(images):
        block, column = divmod(number, COLUMNS)
        original, augmented, preprocessed = (tile(sheet, row, column, block) for row in range(3))
        assert np.array_equal(original[..., 0], np.rint(image / 16 * 255))
        assert (original == original[..., :1]).all()  # grey
        assert np.array_equal(augmented, original[:, ::-1])
        assert np.array_equal(preprocessed, augmented)  # scaled to 0..1, and back for display
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "x.png"
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in shown[1:]}
    assert told["train"] == "1,294" and told["val"] == "144" and told["test"] == "359"
    assert told["shape"] == "1 x 8 x 8" and told["classes"].startswith("10: 0, 1, 2")


def test_augmentation_is_drawn_as_the_training_draws_it():
    data, augmentation, preprocessing = parts("augmentation=crop_flip", "augmentation.padding=2", "seed=5")
    rows, labels = seen(data, augmentation, preprocessing, 70)  # more than a batch
    trainer = type("Trainer", (), {"current_epoch": 0})()
    expected = []
    for index, (images, _) in zip(range(2), data.train_dataloader(), strict=False):
        StepSeed(5).on_train_batch_start(trainer, None, None, index)
        expected.append(augmentation(images))
    expected = torch.cat(expected)[:70]
    assert torch.equal(rows[1], expected) and not torch.equal(rows[0], expected)
    assert torch.equal(rows[2], preprocessing(expected)) and len(labels) == 70


def test_figures_are_those_of_the_preprocessed_training_part():
    data, _, preprocessing = parts("preprocessing=unit_range")
    pixels = preprocessing(data.train_images).double()
    told = re.fullmatch(r"mean (\S+), std (\S+)", figures(data, preprocessing)["preprocessed"])
    assert float(told[1]) == pytest.approx(float(pixels.mean()), abs=1e-4)
    assert float(told[2]) == pytest.approx(float(pixels.std(correction=0)), abs=1e-4)


@pytest.mark.parametrize(
    ("overrides", "index", "name"),
    [
        (["dataset.targets=attributes", "loss=binary_cross_entropy"], [1, 1, 1, 0, 0, 0, 0], "a, b, c"),
        (["dataset.targets=values", "loss=mse"], [3.14159], "3.14"),
        (["dataset=digit_chains", "loss=chain_crf"], [3, 4, 5, 9], "3 4 5 9"),
        ([], 7, "7"),
    ],
)
def test_targets_of_any_kind_are_put_in_words(overrides, index, name):
    data = build_data(Composer().one([line for line in overrides if not line.startswith("loss")]))
    assert named(data, torch.tensor(index)) == name


@pytest.mark.parametrize("shape", [(1, 97, 1), (2, 3, 5), (4, 6, 6), (3, 1, 200)])
def test_images_of_any_shape_and_names_of_any_length_are_drawn(shape):
    row = torch.randint(256, (2, *shape)).byte()
    sheet = picture(
        [row, row, torch.full(row.shape, torch.nan)], ["a name that no tile is wide enough for", "日本"]
    )
    assert sheet.height > LINE and sheet.width > MARGIN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "show: --images must be a whole number >= 1, got 0"),
        (["--images", "65"], "show: --images must be a whole number <= 64, got 65"),
        (["--images", "x"], "show: argument --images: invalid int value: 'x'"),
        (["--output", "no/such/x.png"], r"show: --output no/such/x\.png: .*No such file.*"),
        (["--output", "x.nope"], r"show: --output x\.nope: unknown file extension: \.nope"),
        (["seed=1,2"], "seed=1,2: several values make a sweep, which needs -m"),
        (["dataset=image_folder"], "dataset=image_folder dataset.root=null: must be a folder.*"),
        (["augmentation=flip", "augmentation.p=2"], "augmentation=flip augmentation.p=2: must be a number.*"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(elsewhere, arguments, message):
    with pytest.raises(RequestError) as caught:
        main(["threads=1", *arguments])
    assert re.fullmatch(message, str(caught.value)), str(caught.value)
    assert not [*elsewhere.iterdir()]


def test_help_names_the_arguments(capsys):
    assert main(["--help"]) == 0
    assert {"OVERRIDES", "--output", "--images"} <= set(
        re.findall(r"OVERRIDES|--\w+", capsys.readouterr().out)
    )
