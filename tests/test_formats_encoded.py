"""Each format of encoded images against Pillow, file by file and row by row: nothing differs."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlab.data.image_folder import ImageFolder
from tests.test_formats import equal

REAL_CIFAR10 = Path(__file__).parents[2] / "shared/data/cifar10"

DRAW = np.random.default_rng(0)


# image folders


def write_png(path, pixels):
    """A PNG (gray or RGB, 8 bits) without a library for images."""
    height, width, *channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels else 0, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(
                struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            )


def write_ppm(path, pixels):
    height, width, *channels = pixels.shape
    path.write_bytes(b"P%d %d %d 255\n" % (6 if channels else 5, width, height) + pixels.tobytes())


def write_jpeg(path, pixels):
    Image.fromarray(pixels).save(path, quality=90)


WRITERS = {".png": write_png, ".PPM": write_ppm, ".jpg": write_jpeg}


@pytest.mark.parametrize("channels", [(), (3,)])
def test_an_image_folder_is_what_pillow_reads_file_by_file(tmp_path, channels):
    for number, (part, name) in enumerate((p, c) for p in ("train", "test") for c in ("b", "a", "B", "Ä 1")):
        for below in ("", "x/", "x/y/", "x-y/"):
            place = tmp_path / part / name / below
            place.mkdir(parents=True, exist_ok=True)
            for suffix, write in WRITERS.items():
                pixels = DRAW.integers(0, 256, (9, 7, *channels), dtype=np.uint8)
                write(place / f"{number:x}{suffix}", pixels)
    source = ImageFolder(root=str(tmp_path))
    for part, (images, labels) in zip(("train", "test"), source.load(), strict=True):
        classes = sorted(next(os.walk(tmp_path / part))[1])
        assert source.class_names == classes == ["B", "a", "b", "Ä 1"]
        expected = []
        for label, name in enumerate(classes):
            walked = os.walk(tmp_path / part / name)
            files = sorted(Path(place, file).parts for place, _, found in walked for file in found)
            assert len(files) == 12
            for file in files:
                with Image.open(Path(*file)) as image:
                    expected.append((label, np.asarray(image.convert("RGB"))))
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert images.shape == (48, *(channels or (1,)), 9, 7)
        assert labels.tolist() == [label for label, _ in expected]
        assert equal(images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1), [pixels for _, pixels in expected])


# the hub's parquet files


def write_parquet(path, images, labels, names):
    """As Hugging Face's library writes them: the types are told in the schema's metadata."""
    pyarrow = pytest.importorskip("pyarrow", reason="the hub extra is not installed")
    from pyarrow import parquet

    kinds = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pyarrow.table(
        {"label": pyarrow.array(labels), "image": [{"bytes": each, "path": None} for each in images]}
    )
    told = {"huggingface": json.dumps({"info": {"features": kinds}})}
    parquet.write_table(table.replace_schema_metadata(told), path, row_group_size=2)


def rows_of(file, image, label):
    """The images and labels of a parquet file, a row at a time."""
    from pyarrow import parquet

    for batch in parquet.ParquetFile(file).iter_batches(batch_size=100):
        for row in batch.to_pylist():
            yield row[image]["bytes"], row[label]


def pillow(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def test_parquet_is_what_pyarrow_and_pillow_read_row_by_row(tmp_path):
    pytest.importorskip("datasets", reason="the hub extra is not installed")
    from cnnlab.data.hub import Hub

    for number in range(3):
        encoded = []
        for suffix, write in WRITERS.items():
            write(tmp_path / f"image{suffix}", DRAW.integers(0, 256, (9, 7, 3), dtype=np.uint8))
            encoded.append((tmp_path / f"image{suffix}").read_bytes())
        labels = DRAW.integers(0, 2, 3).tolist()
        write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", encoded, labels, ["cat", "dog"])
    source = Hub(path=str(tmp_path))
    (images, labels), test = source.load()
    files = sorted(tmp_path.glob("*.parquet"))
    expected = [row for file in files for row in rows_of(file, "image", "label")]
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert (test, source.class_names) == (None, ["cat", "dog"])
    assert equal(images.permute(0, 2, 3, 1), [pillow(encoded) for encoded, _ in expected])
    assert labels.tolist() == [label for _, label in expected]


@pytest.mark.skipif(not REAL_CIFAR10.is_dir(), reason=f"no CIFAR-10 in {REAL_CIFAR10}")
def test_cifar10_from_the_hub_is_what_pyarrow_and_pillow_read():
    pytest.importorskip("datasets", reason="the hub extra is not installed")
    from cnnlab.data.hub import Hub

    source = Hub(path=str(REAL_CIFAR10))
    parts = source.load()
    for part, count, every, (images, labels) in zip(
        ("train", "test"), (50_000, 10_000), (50, 5), parts, strict=True
    ):
        assert images.shape == (count, 3, 32, 32) and labels.bincount().tolist() == [count // 10] * 10
        rows = rows_of(REAL_CIFAR10 / f"{part}-00000-of-00001.parquet", "img", "label")
        told = labels.tolist()
        for number, (encoded, label) in enumerate(rows):
            assert told[number] == label
            assert number % every or equal(images[number].permute(1, 2, 0), pillow(encoded))
    assert source.class_names[:2] == ["airplane", "automobile"]
