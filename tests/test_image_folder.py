"""Folders of images: classes, parts, formats, sizes; against Pillow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlab.data.image_folder import ImageFolder

DRAW = np.random.default_rng(0)


def put(path, hw=(6, 5), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = hw if mode == "L" else (*hw, len(mode))
    pixels = DRAW.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


def test_each_folder_is_a_class_and_its_subfolders_belong_to_it(tmp_path):
    cat = put(tmp_path / "cat" / "b.png")
    kitten = put(tmp_path / "cat" / "young" / "a.png")
    ant = put(tmp_path / "ant" / "z.PNG")
    (tmp_path / "ant" / ".DS_Store").touch()
    (tmp_path / "notes.txt").touch()
    put(tmp_path / ".thumbnails" / "a.png")
    source = ImageFolder(root=str(tmp_path))
    (images, labels), test = source.load()
    assert source.class_names == ["ant", "cat"] and labels.tolist() == [0, 1, 1] and test is None
    assert np.array_equal(images, np.stack([ant, cat, kitten]).transpose(0, 3, 1, 2))
    assert [Path(file).name for file in source.files()] == ["z.PNG", "b.png", "a.png"]


def test_train_and_test_are_told_apart_by_their_folders(tmp_path):
    for part in ("train", "test"):
        for name in ("ant", "cat"):
            put(tmp_path / part / name / "a.png")
    put(tmp_path / "test" / "cat" / "b.png")
    (images, labels), (test_images, test_labels) = ImageFolder(root=str(tmp_path)).load()
    assert labels.tolist() == [0, 1] and test_labels.tolist() == [0, 1, 1]
    assert len(images) == 2 and len(test_images) == 3


def test_a_test_class_that_train_lacks_is_refused(tmp_path):
    for place in ("train/ant", "train/cat", "test/ant", "test/dog"):
        put(tmp_path / place / "a.png")
    with pytest.raises(ValueError, match="test has classes that train has not: dog"):
        ImageFolder(root=str(tmp_path)).load()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tiff", "webp", "ppm"])
def test_any_format_of_pillow_is_read(tmp_path, suffix):
    for name in ("ant", "cat"):
        put(tmp_path / name / f"a.{suffix}")
    (images, _), _ = ImageFolder(root=str(tmp_path)).load()
    with Image.open(tmp_path / "cat" / f"a.{suffix}") as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(images[1], expected.transpose(2, 0, 1))


def test_grayscale_stays_one_channel_unless_one_image_has_colour(tmp_path):
    for name in ("ant", "cat"):
        put(tmp_path / name / "a.png", mode="L")
    assert ImageFolder(root=str(tmp_path)).load()[0][0].shape == (2, 1, 6, 5)
    put(tmp_path / "cat" / "b.png")
    assert ImageFolder(root=str(tmp_path)).load()[0][0].shape == (3, 3, 6, 5)


@pytest.mark.parametrize("last", ["test/cat/b.png", "train/cat/z.png"])
def test_one_coloured_image_among_gray_ones_makes_all_of_them_rgb(tmp_path, last):
    grays = [
        put(tmp_path / part / name / "a.png", mode="L")
        for part in ("train", "test")
        for name in ("ant", "cat")
    ]
    colour = put(tmp_path / last)
    (images, _), (test_images, _) = ImageFolder(root=str(tmp_path)).load()
    assert images.shape[1:] == test_images.shape[1:] == (3, 6, 5)
    assert (images[0] == torch.from_numpy(grays[0])).all() and (images[1] == torch.from_numpy(grays[1])).all()
    assert any(np.array_equal(image, colour.transpose(2, 0, 1)) for image in (*images, *test_images))


def test_hidden_folders_and_links_to_folders_within_a_class_are_left_out(tmp_path):
    for place in ("ant/a.png", "ant/.ipynb_checkpoints/a.png", "cat/a.png", "elsewhere.d/b.png"):
        put(tmp_path / "root" / place if "." not in place.split("/")[0] else tmp_path / place)
    (tmp_path / "root" / "cat" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "cat" / "linked.png").symlink_to(tmp_path / "elsewhere.d" / "b.png")
    files = ImageFolder(root=str(tmp_path / "root")).files()
    assert [str(Path(file).relative_to(tmp_path / "root")) for file in files] == [
        *("ant/a.png", "cat/a.png", "cat/linked.png")
    ]


def test_many_chunks_are_decoded_in_order_and_the_first_mistake_is_named(tmp_path):
    for number in range(600):
        name = tmp_path / ("ant" if number < 300 else "cat") / f"{number:03}.png"
        name.parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2), number % 251).save(name)
    images = ImageFolder(root=str(tmp_path)).load()[0][0]
    assert images[:, 0, 0, 0].tolist() == [number % 251 for number in range(600)]
    (tmp_path / "cat" / "599.png").write_bytes(b"junk")
    (tmp_path / "cat" / "333.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cat/333\.png holds no bytes$"):
        ImageFolder(root=str(tmp_path)).load()


def test_any_sizes_are_brought_to_one(tmp_path):
    put(tmp_path / "ant" / "a.png", (3, 200))
    put(tmp_path / "cat" / "a.png", (90, 7))
    (images, _), _ = ImageFolder(root=str(tmp_path), size=8).load()
    with Image.open(tmp_path / "cat" / "a.png") as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(images[1], expected.transpose(2, 0, 1))
    with pytest.raises(ValueError, match=r"size must be given .*: 3x200 and 90x7 \(root=.*: cat/a\.png\)"):
        ImageFolder(root=str(tmp_path)).load()


def test_what_is_no_image_is_named(tmp_path):
    put(tmp_path / "ant" / "a.png")
    put(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"root={tmp_path}: cat/b\.jpg can't be decoded: not an image"):
        ImageFolder(root=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["ant/a.png"], "expected a folder for each of two classes or more, found 1"),
        (["a.png"], "found 0"),
        (["test/ant/a.png", "test/cat/a.png"], "expected folders train and test, found no train"),
    ],
)
def test_a_layout_that_is_none_is_one_line(tmp_path, places, message):
    for place in places:
        put(tmp_path / place)
    with pytest.raises(FileNotFoundError, match=message):
        ImageFolder(root=str(tmp_path)).load()


def test_an_empty_class_and_a_missing_root_are_one_line(tmp_path):
    put(tmp_path / "ant" / "a.png")
    (tmp_path / "cat").mkdir()
    with pytest.raises(FileNotFoundError, match="the folder of class cat has no images"):
        ImageFolder(root=str(tmp_path)).load()
    with pytest.raises(FileNotFoundError, match=r"root=.*: no such folder"):
        ImageFolder(root=str(tmp_path / "nowhere")).load()
    with pytest.raises(ValueError, match="root must be a folder of images, got None"):
        ImageFolder()
