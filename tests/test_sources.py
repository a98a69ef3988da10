"""Files on disk: read exactly, and refused in one line where they are not whole."""

import gzip
import hashlib
import io

import numpy as np
import pytest
import torch

from cnnlab.data.idx import CONTENTS, MNIST, FashionMNIST, read_idx
from tests.web import Web


def idx(array):
    dims = b"".join(size.to_bytes(4) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + dims + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    for name, n in (("train", 20), ("t10k", 4)):
        images = np.arange(n * 6).reshape(n, 2, 3)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))
    return tmp_path


def test_idx_files_are_read_compressed_or_not(folder):
    (images, labels), (test_images, _) = FashionMNIST(root=str(folder)).load()
    assert images.shape == (20, 1, 2, 3)
    assert images.flatten().tolist() == list(range(120))
    assert labels.tolist() == [*range(10), *range(10)]
    assert test_images.shape == (4, 1, 2, 3)


def broken(data, how):
    crc = bytes([data[-8] ^ 1])
    return {
        "magic": gzip.compress(bytes([0, 0, 9, 3]) + bytes(20)),
        "short": gzip.compress(gzip.decompress(data)[:-1]),
        "long": gzip.compress(gzip.decompress(data) + b"x"),
        "header": gzip.compress(gzip.decompress(data)[:9]),
        "cut": data[:-9],
        "crc": data[:-8] + crc + data[-7:],
        "empty": b"",
        "text": b"<html>",
    }[how]


@pytest.mark.parametrize("how", ["magic", "short", "long", "header", "cut", "crc", "empty", "text"])
def test_a_broken_idx_file_is_named_in_one_line(folder, how):
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(broken(file.read_bytes(), how))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: .*expected") as raised:
        FashionMNIST(root=str(folder)).load()
    assert str(raised.value).startswith(f"root={folder}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "what"), [(np.arange(19) % 10, "20 labels, got 19"), (np.arange(20), "0..9")]
)
def test_labels_that_do_not_fit_are_refused(folder, labels, what):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(ValueError, match=what):
        FashionMNIST(root=str(folder)).load()


def test_a_missing_file_or_folder_or_system_copy_is_named(folder, monkeypatch):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=f"root={folder}: no file t10k-labels-idx1-ubyte"):
        FashionMNIST(root=str(folder), download=False).load()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        FashionMNIST(root=f"{folder}/none").load()
    monkeypatch.setenv("XDG_DATA_DIRS", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    with pytest.raises(FileNotFoundError, match=r"fashion-mnist: no file train-images.*download=true"):
        FashionMNIST(download=False).load()
    (folder / "datasets").mkdir()
    (folder / "datasets/fashion-mnist").symlink_to(folder)
    with pytest.raises(FileNotFoundError, match=r"t10k-labels"):
        FashionMNIST(download=False).load()


def test_what_is_missing_is_downloaded_and_what_is_there_is_kept(folder, tmp_path_factory, monkeypatch):
    mine = tmp_path_factory.mktemp("mine")
    names = [f"{part}-{content}.gz" for part in ("train", "t10k") for content in CONTENTS]
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_bytes(gzip.compress((folder / name).with_suffix("").read_bytes()))
    md5s = tuple(hashlib.md5((folder / name).read_bytes()).hexdigest() for name in names)
    monkeypatch.setattr(MNIST, "md5s", md5s)
    (mine / names[0].removesuffix(".gz")).write_bytes(gzip.decompress((folder / names[0]).read_bytes()))
    with Web(folder) as web:
        monkeypatch.setattr(MNIST, "mirrors", (web.url,))
        (images, labels), _ = MNIST(root=str(mine)).load()
        assert web.asked == dict.fromkeys(names[1:], 1)
    assert images.flatten().tolist() == list(range(120)) and labels.tolist() == [*range(10), *range(10)]


def test_read_idx_gives_memory_of_its_own(folder):
    read_idx(folder / "train-labels-idx1-ubyte", ndim=1).zero_()


def png(array, mode=None):
    from PIL import Image

    image = Image.fromarray(np.asarray(array, dtype=np.uint8))
    image = image.convert(mode) if mode else image
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def write(file, images, labels, names=None):
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
    from pyarrow import parquet

    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"img": datasets.Image(), "label": label})
    records = {"img": [{"bytes": image, "path": "a.png"} for image in images], "label": labels}
    file.parent.mkdir(exist_ok=True)
    parquet.write_table(datasets.Dataset.from_dict(records, features=features).data.table, file)


def hub(path, **knobs):
    from cnnlab.data.hub import Hub

    return Hub(path=str(path), **knobs)


GRAY = [np.full((2, 3), shade) for shade in (0, 7, 255)]
RGB = np.arange(18).reshape(2, 3, 3)


@pytest.mark.parametrize("name", ["{}-00000-of-00001.parquet", "data/{}.parquet", "{}/0000.parquet"])
def test_grayscale_images_stay_one_channel_in_every_layout(tmp_path, name):
    write(tmp_path / name.format("train"), map(png, GRAY), [0, 1, 1], ["cat", "dog"])
    write(tmp_path / name.format("validation"), [png(GRAY[1])], [1], ["cat", "dog"])
    source = hub(tmp_path)
    (images, labels), (test_images, _) = source.load()
    assert images[:, :, 0, 0].tolist() == [[0], [7], [255]]
    assert labels.tolist() == [0, 1, 1]
    assert test_images.tolist() == [[[[7] * 3] * 2]]
    assert source.class_names == ["cat", "dog"]


def test_one_colour_image_makes_all_rgb(tmp_path):
    write(tmp_path / "train.parquet", [png(GRAY[1]), png(RGB)], [0, 1])
    source = hub(tmp_path)
    (images, _), test = source.load()
    assert torch.equal(images[1], torch.tensor(RGB, dtype=torch.uint8).permute(2, 0, 1))
    assert images[0].unique().tolist() == [7]
    assert test is None
    assert source.class_names == ["0", "1"]


def test_images_of_many_sizes_need_size(tmp_path):
    write(tmp_path / "train.parquet", [png(GRAY[1]), png(np.full((90, 80), 9))], [0, 1])
    with pytest.raises(ValueError, match=r"^size must be given where images differ in size: 2x3 and 90x80"):
        hub(tmp_path).load()
    (images, _), _ = hub(tmp_path, size=70).load()
    assert images.shape == (2, 1, 70, 70)
    assert images[:, 0].unique(dim=1).flatten(1).unique(dim=1).tolist() == [[7], [9]]


@pytest.mark.parametrize(
    ("images", "labels", "names", "what"),
    [
        ([b"junk"], [0], None, "train.parquet: image 0 can't be decoded: not an image"),
        ([png(RGB)[:-30]], [0], None, "train.parquet: image 0 can't be decoded"),
        ([None], [0], None, "image 0 holds no bytes"),
        ([png(RGB)], [-1], ["a", "b"], "train.parquet: labels must be 0..1, got -1..-1"),
        ([png(RGB)], [None], None, "1 labels are missing"),
        ([png(RGB)], [10**12], None, "labels must be 0..1"),
        ([], [], None, "expected images, got none"),
    ],
)
def test_corrupt_content_is_named_in_one_line(tmp_path, images, labels, names, what):
    write(tmp_path / "train.parquet", images, labels, names)
    with pytest.raises(ValueError, match=what) as raised:
        hub(tmp_path).load()
    assert "\n" not in str(raised.value)


def test_missing_and_broken_parquet_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        hub(tmp_path / "none").load()
    with pytest.raises(FileNotFoundError, match=r"expected train-\*.parquet"):
        hub(tmp_path).load()
    write(tmp_path / "train-00000-of-00002.parquet", [png(RGB)], [0])
    with pytest.raises(FileNotFoundError, match="expected 00002 train files, got 1"):
        hub(tmp_path).load()
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"train-00001-of-00002.parquet: expected a whole parquet file"):
        hub(tmp_path).load()


def test_a_column_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    write(tmp_path / "train.parquet", [png(RGB)], [0])
    with pytest.raises(ValueError, match=r"^image_column must be one of img"):
        hub(tmp_path, image_column="imgs").load()
