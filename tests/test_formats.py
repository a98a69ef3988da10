"""Each format against a reader that shares nothing with ours: same images, labels, order and types.

Those readers are slow and written from the formats' published descriptions, or other libraries.
"""

import csv
import gzip
import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from cnnlab.data.cifar import CIFAR10
from cnnlab.data.digits import Digits
from cnnlab.data.idx import MNIST, FashionMNIST, read_idx
from cnnlab.data.svhn import SVHN
from tests import test_cifar as cifar
from tests import test_svhn as svhn

REAL_FASHION = Path("/usr/share/datasets/fashion-mnist")

DRAW = np.random.default_rng(0)


def equal(tensor, rows):
    """Whether a tensor holds nested lists of whole numbers, or arrays."""
    return bool(np.array_equal(tensor.numpy(), np.asarray(rows)))


# idx


def slow_idx(data):
    """Nested lists of the numbers in an idx file of unsigned bytes, taken one by one."""
    file = io.BytesIO(data)
    zeros, kind, ndim = struct.unpack(">HBB", file.read(4))
    assert (zeros, kind) == (0, 8)
    sizes = [struct.unpack(">i", file.read(4))[0] for _ in range(ndim)]

    def taken(sizes):
        return [taken(sizes[1:]) for _ in range(sizes[0])] if sizes else file.read(1)[0]

    numbers = taken(sizes)
    assert file.read() == b""
    return numbers


def write_idx(path, sizes, numbers):
    data = struct.pack(f">HBB{len(sizes)}i", 0, 8, len(sizes), *sizes) + bytes(numbers)
    with gzip.GzipFile(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(data)
    return data


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_is_what_is_read_byte_by_byte(tmp_path, suffix):
    written = {}
    for part, count in (("train", 12), ("t10k", 5)):
        pixels, labels = DRAW.integers(0, 256, count * 28 * 27), DRAW.integers(0, 10, count)
        for name, sizes, numbers in (
            ("images-idx3", (count, 28, 27), pixels),
            ("labels-idx1", (count,), labels),
        ):
            path = tmp_path / f"{part}-{name}-ubyte{suffix}"
            written[part, name] = slow_idx(write_idx(path, sizes, numbers.tolist()))
    for part, (images, labels) in zip(("train", "t10k"), MNIST(root=str(tmp_path)).load(), strict=True):
        assert (images.dtype, labels.dtype, images.shape[1:]) == (torch.uint8, torch.int64, (1, 28, 27))
        assert equal(images[:, 0], written[part, "images-idx3"])
        assert equal(labels, written[part, "labels-idx1"])


@pytest.mark.skipif(not REAL_FASHION.is_dir(), reason=f"no Fashion-MNIST in {REAL_FASHION}")
def test_fashion_mnist_is_byte_for_byte_what_its_files_hold():
    parts = FashionMNIST(root=str(REAL_FASHION)).load()
    for part, count, (images, labels) in zip(("train", "t10k"), (60_000, 10_000), parts, strict=True):
        for name, tensor, sizes in (
            ("images-idx3", images, (count, 28, 28)),
            ("labels-idx1", labels, (count,)),
        ):
            data = gzip.decompress((REAL_FASHION / f"{part}-{name}-ubyte.gz").read_bytes())
            header = struct.pack(f">HBB{len(sizes)}i", 0, 8, len(sizes), *sizes)
            assert data == header + tensor.to(torch.uint8).numpy().tobytes()
        assert labels.bincount().tolist() == [count // 10] * 10


def test_a_flipped_bit_of_a_compressed_idx_file_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(path, (2, 3, 4), range(24))
    whole, expected = path.read_bytes(), read_idx(path, ndim=3)
    refused = 0
    for bit in range(8 * len(whole)):
        path.write_bytes(flipped(whole, bit))
        found, said = attempted(lambda: read_idx(path, ndim=3))
        assert torch.equal(found, expected) if said is None else said.startswith(f"{path.name}: ")
        refused += said is not None
    # Without a checksum are the header's time, system and name of the file, and bits that fill the last byte.
    assert refused >= 8 * (len(whole) - whole.index(b"\0", 10)) - 7


def test_a_flipped_bit_in_the_header_of_an_idx_file_is_refused(tmp_path):
    path = tmp_path / "labels"
    whole = write_idx(path, (7,), range(7))
    for bit in range(8 * 8):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(ValueError, match=r"^labels: .*expected"):
            read_idx(path, ndim=1)


def attempted(read):
    """What it gives, or what it says instead, in one line."""
    try:
        return read(), None
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
    return None, said


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# CIFAR


def unpacked(archive):
    """The files of an archive by their names."""
    with tarfile.open(archive) as tar:
        return {Path(each.name).name: tar.extractfile(each).read() for each in tar if each.isfile()}


@pytest.mark.parametrize("word", cifar.SOURCES)
def test_binary_cifar_is_what_is_read_record_by_record(monkeypatch, tmp_path, word):
    version, files, _ = cifar.written(word, 0)
    cifar.known(monkeypatch, word, cifar.packed(version, files, tmp_path))
    contents = unpacked(tmp_path / version.archive.name)
    images, labels = [], {kind: [] for kind in version.names}
    for name in version.train:
        file = io.BytesIO(contents[name])
        while first := file.read(1):
            for kind, label in zip(version.names, first + file.read(len(version.names) - 1), strict=True):
                labels[kind].append(label)
            images.append([[[file.read(1)[0] for _ in range(32)] for _ in range(32)] for _ in range(3)])
    for kind, expected in labels.items():
        source = cifar.SOURCES[word](root=str(tmp_path), **({"labels": kind} if word == "cifar100" else {}))
        (found, found_labels), _ = source.load()
        assert (found.dtype, found_labels.dtype) == (torch.uint8, torch.int64)
        assert equal(found, images) and equal(found_labels, expected)
        assert source.class_names == contents[version.names[kind]].decode().splitlines()


class Python2Pickler(pickle._Pickler):
    """Writes as Python 2 and the NumPy of its time did: all strings are bytes without an encoding."""

    def save_string(self, text):
        text = text if isinstance(text, bytes) else text.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: save_string, str: save_string}


def python2_pickle(content):
    Python2Pickler(file := io.BytesIO(), protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


@pytest.mark.parametrize("by", ["python 2", "python 3"])
@pytest.mark.parametrize("word", cifar.SOURCES)
def test_python_cifar_is_what_pickle_reads(tmp_path, word, by):
    version, files, _ = cifar.written(word, 1)
    if by == "python 2":
        files = {name: python2_pickle(pickle.loads(data)) for name, data in files.items()}
        assert b"_codecs" not in files[version.test]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    contents = {name: pickle.loads(data, encoding="bytes") for name, data in files.items()}
    for kind, (key, names) in version.keys.items():
        source = cifar.SOURCES[word](root=str(tmp_path), **({"labels": kind} if word == "cifar100" else {}))
        for part, (images, labels) in zip((version.train, [version.test]), source.load(), strict=True):
            rows = [row for name in part for row in contents[name][b"data"]]
            assert len(rows) == len(images) and images.dtype == torch.uint8
            for row, image in zip(rows, images, strict=True):
                red_green_blue = [row[start : start + 1024].reshape(32, 32) for start in (0, 1024, 2048)]
                assert equal(image, red_green_blue)
            assert labels.tolist() == [label for name in part for label in contents[name][key]]
        assert source.class_names == [name.decode() for name in contents[version.meta][names]]


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_a_flipped_bit_in_an_unpacked_pickle_is_one_line_or_a_pixel(tmp_path, name):
    _, files, _ = cifar.written("cifar10", 1, count=1)
    for each, data in files.items():
        (tmp_path / each).write_bytes(data)
    whole, expected = files[name], CIFAR10(root=str(tmp_path)).load()
    middle = max(150, len(whole) - 80)  # before it are pixels
    bits = [*range(0, 8 * min(150, middle), 7), *range(8 * middle, 8 * len(whole), 7)]
    refused = 0
    for bit in bits:
        (tmp_path / name).write_bytes(flipped(whole, bit))
        found, said = attempted(CIFAR10(root=str(tmp_path)).load)
        if said is None:
            assert all(part[0].shape == whole[0].shape for part, whole in zip(found, expected, strict=True))
        else:
            assert f"root={tmp_path}: {name}: " in said
        refused += said is not None
    assert refused > len(bits) // 4


# SVHN


def slow_mat(data):
    """The matrices of unsigned bytes in a MAT-file of level 5, as dimensions and bytes in column order."""
    assert data[124:128] == b"\x00\x01IM"
    found = {}

    def elements(data):
        at = 0
        while at < len(data):
            kind, size = struct.unpack_from("<II", data, at)
            if kind >> 16:  # a small one: size, kind and content in eight bytes
                yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
                at += 8
                continue
            yield kind, data[at + 8 : at + 8 + size]
            at += 8 + size + (-size % 8 if kind != 15 else 0)

    def matrices(data):
        for kind, content in elements(data):
            if kind == 15:  # compressed
                matrices(zlib.decompress(content))
                continue
            assert kind == 14  # a matrix: flags, dimensions, name, numbers
            (_, flags), (_, sizes), (_, name), (number, numbers) = elements(content)
            assert flags[0] == 9 and number == 2  # of unsigned bytes
            found[name.decode()] = struct.unpack(f"<{len(sizes) // 4}i", sizes), numbers

    matrices(data[128:])
    return found


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_is_what_is_read_byte_by_byte(monkeypatch, tmp_path, compressed):
    svhn.written(tmp_path, monkeypatch, packed=compressed)
    for remote, (images, labels) in zip(SVHN.remotes, SVHN(root=str(tmp_path)).load(), strict=True):
        matrices = slow_mat((tmp_path / remote.name).read_bytes())
        sizes, pixels = matrices["X"]
        assert sizes == (32, 32, 3, len(images)) and matrices["y"][0] == (len(images), 1)
        pixel = iter(pixels)
        expected = np.zeros((len(images), 3, 32, 32), np.uint8)
        for n in range(len(images)):
            for channel in range(3):
                for column in range(32):
                    for row in range(32):  # which runs fastest
                        expected[n, channel, row, column] = next(pixel)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert equal(images, expected)
        assert labels.tolist() == [{10: 0}.get(y, y) for y in matrices["y"][1]]


# digits


def test_digits_are_the_numbers_in_their_file():
    source = Digits()
    (images, labels), _ = source.load()
    with gzip.open(source.files()[0], "rt") as file:
        rows = [[int(float(number)) for number in row] for row in csv.reader(file)]
    assert equal(images.flatten(1), [row[:64] for row in rows])
    assert labels.tolist() == [row[64] for row in rows]
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
