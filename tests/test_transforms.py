"""Preprocessing and augmentation against slow references."""

import pytest
import torch

from cnnlab import available, create
from cnnlab.data import preprocessing
from cnnlab.data.augmentation import CropFlip, Flip
from cnnlab.data.preprocessing import Standardize, UnitRange


@pytest.fixture
def images(monkeypatch):
    """Two chunks and a part of one."""
    monkeypatch.setattr(preprocessing, "CHUNK", 100 * 3 * 4 * 6)
    return torch.randint(256, (205, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_standardize_agrees_with_float64_over_all_chunks(images):
    pixels = images.double()
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)
    expected = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(Standardize().fit(images)(images), expected.float())


def test_unit_range_of_bytes_is_exactly_division_by_255():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(UnitRange().fit(images)(images), images.float() / 255)


@pytest.mark.parametrize("word", available("preprocessing"))
def test_a_fresh_preprocessing_takes_the_state_of_a_fitted_one(word, images):
    fitted, fresh = (torch.nn.Sequential(create("preprocessing", word)) for _ in range(2))
    fitted[0].fit(images)
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(images), fitted(images))
    assert fresh(images).isfinite().all()


@pytest.mark.parametrize("word", available("preprocessing"))
def test_constant_images_stay_finite(word):
    images = torch.full((2, 3, 2, 2), 9, dtype=torch.uint8)
    assert create("preprocessing", word).fit(images)(images).isfinite().all()


@pytest.mark.parametrize("word", ["unit_range", "standardize"])
def test_a_preprocessing_not_fitted_gives_nan(word):
    assert create("preprocessing", word)(torch.ones(1, 3, 2, 2)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("padding", [1, 4])
def test_crop_flip_agrees_with_a_loop_over_images(dtype, layout, padding):
    images = torch.randint(1, 256, (40, 3, 5, 7)).to(dtype).contiguous(memory_format=layout)
    torch.manual_seed(3)
    got = CropFlip(padding=padding)(images)
    torch.manual_seed(3)
    top, left = torch.randint(2 * padding + 1, (2, 40, 1))
    flipped = torch.rand(40, 1) < 0.5
    for i, image in enumerate(images):
        canvas = torch.zeros(3, 5 + 2 * padding, 7 + 2 * padding, dtype=dtype)
        canvas[:, padding : padding + 5, padding : padding + 7] = image
        crop = canvas[:, top[i] : top[i] + 5, left[i] : left[i] + 7]
        assert torch.equal(got[i], crop.flip(2) if flipped[i] else crop)
    assert 0 < flipped.sum() < 40


def test_flip_mirrors_whole_images_half_of_the_time():
    images = torch.arange(1000 * 2 * 3 * 4).view(1000, 2, 3, 4)
    got = Flip()(images)
    same, mirrored = ((got == other).flatten(1).all(1) for other in (images, images.flip(3)))
    assert (same ^ mirrored).all()
    assert 400 < mirrored.sum() < 600


def test_every_position_of_the_crop_is_as_likely():
    image = torch.zeros(9000, 1, 3, 3, dtype=torch.uint8)
    image[:, :, 1, 1] = 1  # with padding 1 its place tells the shift
    counts = CropFlip(padding=1, p=0)(image).sum(0)
    assert (counts > 850).all()
    assert (counts < 1150).all()


@pytest.mark.parametrize("word", available("augmentation"))
def test_augmentation_changes_nothing_in_eval_mode(word):
    images = torch.rand(8, 3, 5, 7)
    assert torch.equal(create("augmentation", word).eval()(images), images)


@pytest.mark.parametrize(("knob", "value"), [("p", 1.5), ("p", "half"), ("padding", -1), ("padding", 1.5)])
def test_a_wrong_knob_is_named(knob, value):
    with pytest.raises(ValueError, match=f"^{knob} must be"):
        CropFlip(**{knob: value})
