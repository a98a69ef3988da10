"""The cache of decoded data: the same bits, decoded once, and never in anybody's way."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnlab.data import cache
from cnnlab.data.digits import Digits
from cnnlab.data.idx import FashionMNIST
from cnnlab.data.images import ImageData
from tests import isolated
from tests.processes import wait_for
from tests.test_sources import RGB, folder, hub, png, write

__all__ = ["folder"]  # a fixture: idx files of 20 and 4 images


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """A source that counts how often it is read, from one text file: a digit for each image, its label."""

    def __init__(self, file, *, gain=1, log=None, wait_s=0.0):
        self.file, self.gain, self.log, self.wait_s = Path(file), gain, log, wait_s

    def files(self):
        return [self.file]

    def load(self):
        if self.log is not None:
            with Path(self.log).open("a") as log:
                log.write("x")
        time.sleep(self.wait_s)
        labels = np.array([int(digit) for digit in self.file.read_text()])
        self.class_names = [str(label) for label in range(max(labels) + 1)]
        return ((labels * self.gain).astype(np.uint8).reshape(-1, 1, 1, 1), labels), None


@pytest.fixture
def source(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits.txt").write_text("0123" * 10)

    def made(**knobs):
        return Counted(tmp_path / "data" / "digits.txt", log=str(tmp_path / "read"), **knobs)

    return made


def reads(tmp_path: Path) -> int:
    return len((tmp_path / "read").read_text())


def pixels(data: cache.Data) -> list[int]:
    return torch.as_tensor(data.train[0]).flatten().tolist()


def test_what_is_kept_is_what_was_decoded(tmp_path, source):
    for _ in range(3):
        data = cache.load(source())
        assert pixels(data) == data.train[1].tolist() == [0, 1, 2, 3] * 10
        assert data.train[0].dtype == torch.uint8 and data.train[1].dtype == torch.int64
        assert data.test is None and data.class_names == ["0", "1", "2", "3"]
    assert reads(tmp_path) == 1


def test_idx_and_hub_files_keep_test_set_and_class_names(tmp_path, folder, monkeypatch):
    write(tmp_path / "hub" / "train.parquet", [png(RGB)] * 12, [0, 1] * 6, ["cat", "dog"])
    write(tmp_path / "hub" / "test.parquet", [png(RGB + 1)] * 3, [0, 1, 1], ["cat", "dog"])
    for make in (lambda: FashionMNIST(root=str(folder)), lambda: hub(tmp_path / "hub")):
        decoded, kept = make(), make()
        train, test = decoded.load()
        cache.load(make())
        monkeypatch.setattr(type(kept), "load", lambda self: pytest.fail("it is in the cache"))
        data = cache.load(kept)
        for ours, theirs in ((data.train, train), (data.test, test)):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert data.class_names == [*decoded.class_names]


def test_digits_once_kept_need_no_scikit_learn(place):
    decoded = Digits().load()[0]
    assert [path.is_file() for path in Digits().files()] == [True]
    assert torch.equal(cache.load(Digits()).train[0], decoded[0])
    code = (
        "import sys; from cnnlab.data import cache; from cnnlab.data.digits import Digits; "
        "print(int(cache.load(Digits()).train[0].sum()), 'sklearn' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(int(decoded[0].sum())), "False"]


def test_writing_to_the_data_does_not_reach_the_cache(source):
    for _ in range(2):
        images = cache.load(source()).train[0]
        assert images[1] == 1
        images.zero_()


def test_the_split_copies_nothing(source):
    data = ImageData(source(), batch_size=8, seed=0)
    data.setup()
    assert len({part.images.data_ptr() for part in data.parts.values()}) == 1
    for name, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert torch.equal(images.flatten(), labels)
        assert sorted(labels.tolist()) == sorted(getattr(data, name)[1].tolist())


def test_other_knobs_are_kept_beside_and_other_files_take_the_place_of_the_old(tmp_path, place, source):
    assert pixels(cache.load(source(gain=2)))[:4] == [0, 2, 4, 6]
    assert pixels(cache.load(source(gain=3)))[:4] == [0, 3, 6, 9]
    assert pixels(cache.load(source(gain=2)))[:4] == [0, 2, 4, 6]
    assert reads(tmp_path) == 2 and len([*place.glob("Counted-*/*/contents.json")]) == 2
    (tmp_path / "data" / "digits.txt").write_text("3210" * 10)
    assert pixels(cache.load(source(gain=2)))[:4] == [6, 4, 2, 0]
    assert reads(tmp_path) == 3 and len([*place.glob("Counted-*/*/contents.json")]) == 2


def test_data_elsewhere_of_the_same_name_are_other_data(tmp_path, source, monkeypatch):
    shutil.copytree(tmp_path / "data", tmp_path / "b" / "data")
    (tmp_path / "b" / "data" / "digits.txt").write_text("11223344550")
    monkeypatch.chdir(tmp_path)
    first = cache.load(Counted("data/digits.txt"))
    monkeypatch.chdir(tmp_path / "b")
    assert pixels(first) != pixels(cache.load(Counted("data/digits.txt")))


def tear(entry: Path, how: str) -> None:
    images, contents = entry / "train_images.npy", entry / "contents.json"
    match how:
        case "cut":
            images.write_bytes(images.read_bytes()[:-1])
        case "empty":
            images.write_bytes(b"")
        case "missing":
            images.unlink()
        case "foreign":
            np.save(images, np.zeros((40, 1, 1, 1)))
        case "pickle":
            np.save(images, np.array([{}]), allow_pickle=True)
        case "zip":
            with images.open("wb") as file:
                np.savez(file, np.zeros(3))
        case "no contents":
            contents.unlink()
        case "other contents":
            contents.write_text("[]")
        case "no arrays":
            contents.write_text('{"arrays": {}, "class_names": []}')
        case "left in the middle":
            entry.rename(entry.with_name(f"{entry.name}.tmp"))


@pytest.mark.parametrize(
    "how",
    [
        *(
            "cut",
            "empty",
            "missing",
            "foreign",
            "pickle",
            "zip",
            "no contents",
            "other contents",
            "no arrays",
        ),
        "left in the middle",
    ],
)
def test_torn_and_foreign_files_are_decoded_anew(tmp_path, place, source, how):
    cache.load(source())
    (entry,) = place.glob("*/*/")
    tear(entry, how)
    for _ in range(2):
        assert pixels(cache.load(source())) == [0, 1, 2, 3] * 10
    assert reads(tmp_path) == 2 and [*place.glob("*/*/")] == [entry]


@pytest.mark.parametrize("where", ["/dev/null", "/dev/null/x", "/proc/x"])
def test_where_nothing_can_be_written_data_are_decoded_in_memory(source, monkeypatch, caplog, where):
    monkeypatch.setenv("CNNLAB_CACHE", where)
    with caplog.at_level("DEBUG", "cnnlab"):
        assert pixels(cache.load(source())) == [0, 1, 2, 3] * 10
    (told,) = caplog.records
    assert told.levelname == "DEBUG" and where in told.getMessage() and "not kept" in told.getMessage()


def test_a_full_disk_leaves_nothing_behind(place, source, monkeypatch):
    def full(file, array, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert pixels(cache.load(source())) == [0, 1, 2, 3] * 10
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["lock"]


def test_without_a_home_data_are_decoded_in_memory(source, monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CNNLAB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert pixels(cache.load(source())) == [0, 1, 2, 3] * 10


def test_the_cache_lies_where_xdg_says(tmp_path, source, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cache.load(source())
    assert [*(tmp_path / "xdg" / "cnnlab").glob("Counted-*")]
    monkeypatch.delenv("XDG_CACHE_HOME")
    cache.load(source())
    assert [*Path(os.environ["HOME"], ".cache", "cnnlab").glob("Counted-*")]


def test_a_source_of_objects_or_without_files_is_not_kept(place, source):
    assert pixels(cache.load(source(gain=torch.tensor(2).numpy())))[:2] == [0, 2]
    without = type("Plain", (), {"load": source().load, "class_names": ["a"]})
    assert pixels(cache.load(without())) == [0, 1, 2, 3] * 10
    assert not place.exists()


def test_what_a_source_refuses_is_not_kept(tmp_path, place, source):
    (tmp_path / "data" / "digits.txt").write_text("0x")
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            cache.load(source())
    assert not [*place.glob("*/*/")]
    (tmp_path / "data" / "digits.txt").write_text("01")
    assert pixels(cache.load(source())) == [0, 1]


def test_files_that_change_while_they_are_read_are_not_kept(tmp_path, place, source):
    class Changing(Counted):
        def load(self):
            found = super().load()
            self.file.write_text("321")
            return found

    file = tmp_path / "data" / "digits.txt"
    assert pixels(cache.load(Changing(file))) == [0, 1, 2, 3] * 10
    assert pixels(cache.load(Changing(file))) == [3, 2, 1]


def load_together(file: str, log: str, number: int) -> list[int]:
    """What is loaded, slowly, where nobody takes the lock before all four ask for it."""
    flock = fcntl.flock

    def together(*told):
        Path(f"{log}-{number}").touch()
        assert wait_for(lambda: len([*Path(log).parent.glob("read-*")]) == 4)
        flock(*told)

    fcntl.flock = together  # in a process of this test's own
    return pixels(cache.load(Counted(file, log=log, wait_s=0.5)))


def test_of_jobs_that_start_at_once_one_decodes_and_the_others_wait(tmp_path, source):
    from concurrent.futures import ThreadPoolExecutor

    arguments = str(source().file), str(tmp_path / "read")
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(isolated.run, load_together, *arguments, number) for number in range(4)]
        assert [answer.result() for answer in asked] == [[0, 1, 2, 3] * 10] * 4
    assert reads(tmp_path) == 1


def resident(field: str) -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))  # kB


def private_growth(root: str) -> int:
    """kB that a process alone holds of data it has read in whole."""
    before = resident("Private_Dirty")
    data = cache.load(FashionMNIST(root=root))
    int(data.train[0].sum())
    return resident("Private_Dirty") - before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_a_process_that_only_reads_holds_no_pages_of_its_own(tmp_path):
    n = 20_000  # 16 MB
    from tests.test_sources import idx

    for name, count in (("train", n), ("t10k", 10)):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(np.ones((count, 28, 28))))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    cache.load(FashionMNIST(root=str(tmp_path)))
    assert isolated.run(private_growth, str(tmp_path)) < 4_000
