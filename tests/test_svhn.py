"""SVHN's .mat files in small: what was put in comes out, with 10 as the digit 0; damaged ones."""

import hashlib

import numpy as np
import pytest
from scipy.io import savemat

from cnnlab.data.svhn import SVHN
from tests.web import Web


def written(folder, monkeypatch, mirrors=("http://127.0.0.1:9/",), counts=(7, 3), packed=True, **changes):
    """Both files; their pixels (H, W, C, N) and labels."""
    draw = np.random.default_rng(0)
    parts, remotes = [], []
    for remote, count in zip(SVHN.remotes, counts, strict=True):
        content = {
            "X": draw.integers(0, 256, (32, 32, 3, count), dtype=np.uint8),
            "y": np.append(draw.integers(1, 11, (count - 1, 1)), [[10]], axis=0).astype(np.uint8),
        }
        savemat(folder / remote.name, content | changes, do_compression=packed)
        md5 = hashlib.md5((folder / remote.name).read_bytes()).hexdigest()
        remotes.append(remote._replace(md5=md5, mirrors=mirrors))
        parts.append((content["X"], content["y"]))
    monkeypatch.setattr(SVHN, "remotes", tuple(remotes))
    return parts


def test_the_images_and_labels_that_were_put_in_come_out(monkeypatch, tmp_path):
    parts = written(tmp_path, monkeypatch)
    for (images, labels), (pixels, y) in zip(SVHN(root=str(tmp_path)).load(), parts, strict=True):
        assert images.shape == (len(y), 3, 32, 32) and images.is_contiguous()
        for n in range(len(y)):
            assert images[n, 1, 5, 9] == pixels[5, 9, 1, n]
            assert labels[n] == (0 if y[n, 0] == 10 else y[n, 0])


def test_both_files_are_downloaded_where_they_are_missing(monkeypatch, tmp_path):
    offered = tmp_path / "offered"
    offered.mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    with Web(offered) as web:
        written(offered, monkeypatch, (web.url,))
        train, test = SVHN().load()
        assert (len(train[1]), len(test[1])) == (7, 3)
        assert web.asked == {"train_32x32.mat": 1, "test_32x32.mat": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2))}, r"expected uint8 X \(32, 32, 3, N\), got float64"),
        ({"X": np.zeros((32, 32, 3, 99), np.uint8)}, r".*got uint8 \(32, 32, 3, 99\)"),
        ({"y": np.full((7, 1), 11)}, r"labels must be 1\.\.10, got 11\.\.11"),
    ],
)
def test_other_contents_are_one_line(monkeypatch, tmp_path, changes, message):
    written(tmp_path, monkeypatch, **changes)
    with pytest.raises(ValueError, match=rf"root=.*: train_32x32\.mat: {message}"):
        SVHN(root=str(tmp_path)).load()


def test_a_flipped_bit_is_found_and_a_torn_file_is_named(monkeypatch, tmp_path):
    written(tmp_path, monkeypatch)
    path = tmp_path / "test_32x32.mat"
    whole = path.read_bytes()
    for place in (0, 130, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"test_32x32\.mat is damaged"):
            SVHN(root=str(tmp_path)).load()
    for torn in (whole[: len(whole) // 2], b"", b"no .mat file at all"):
        path.write_bytes(torn)
        remotes = (SVHN.remotes[0], SVHN.remotes[1]._replace(md5=hashlib.md5(torn).hexdigest()))
        monkeypatch.setattr(SVHN, "remotes", remotes)
        with pytest.raises(ValueError, match=r"test_32x32\.mat: expected a whole \.mat file") as refused:
            SVHN(root=str(tmp_path)).load()
        assert "\n" not in str(refused.value)
