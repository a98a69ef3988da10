"""Where decoded images go: memory or a file that is mapped, to the same bits, whatever there is room for."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnlab.data import cache, room
from cnnlab.data.image_folder import ImageFolder
from cnnlab.data.images import ImageData
from tests import isolated
from tests.test_cache import place
from tests.test_sources import RGB, hub, png, write

__all__ = ["place"]  # a fixture: a cache of the test's own


@pytest.fixture
def pictures(tmp_path):
    """An image folder of 12 and 4 coloured images of 20x30."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("ant", "cat"):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / name / f"{number}.png")
    return str(tmp_path / "pictures")


def no_decoding(*_):
    pytest.fail("it is in the cache")


@pytest.mark.parametrize("kind", ["folder", "hub"])
def test_images_decoded_into_a_file_are_those_decoded_in_memory(
    tmp_path, pictures, kind, caplog, monkeypatch
):
    write(tmp_path / "hub" / "train-00000-of-00002.parquet", [png(RGB)] * 12, [0, 1] * 6, ["cat", "dog"])
    write(tmp_path / "hub" / "train-00001-of-00002.parquet", [png(RGB + 1)] * 12, [1, 1] * 6, ["cat", "dog"])

    def source(in_memory):
        if kind == "hub":
            return hub(tmp_path / "hub", in_memory=in_memory)
        return ImageFolder(root=pictures, in_memory=in_memory)

    (images, labels), test = source(True).load()
    mapped = cache.load(source(False))
    assert torch.equal(torch.as_tensor(mapped.train[0]), images) and torch.equal(mapped.train[1], labels)
    assert (mapped.test is None) == (test is None)
    if test is not None:
        assert torch.equal(mapped.test[0], test[0]) and torch.equal(mapped.test[1], test[1])
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == (1 if test is None else 2)
    assert told[0].startswith(f"train images take 1 MB in {tmp_path / 'cache'};")
    monkeypatch.setattr(source(True).__class__, "load", no_decoding)
    for in_memory in (True, "auto", False):  # how it was loaded makes no other data of it
        assert torch.equal(cache.load(source(in_memory)).train[0], images)


def test_the_order_of_a_training_is_the_same_from_memory_and_from_a_file(pictures, monkeypatch):
    def epoch():
        data = ImageData(ImageFolder(root=f"{pictures}/train"), batch_size=4, seed=3)
        data.setup()
        return [data.train_images, *(tensor for batch in data.train_dataloader() for tensor in batch)]

    in_memory = epoch()
    shutil.rmtree(os.environ["CNNLAB_CACHE"])
    monkeypatch.setattr(room, "free_bytes", lambda: 0)
    assert all(torch.equal(a, b) for a, b in zip(in_memory, epoch(), strict=True))


def test_what_is_more_than_half_of_the_free_memory_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda: 200)
    place = room.Room(tmp_path / "entry", "auto")
    assert not isinstance(place("train", (1, 1, 10, 10)), np.memmap)
    mapped = place("train", (1, 1, 1, 101))
    assert isinstance(mapped, np.memmap)
    mapped[:] = 7
    assert (np.load(tmp_path / "entry" / "train_images.npy") == 7).all()
    assert isinstance(room.Room(tmp_path / "entry", False)("test", (1, 1, 1, 1)), np.memmap)
    assert not isinstance(room.Room(tmp_path / "entry", True)("test", (1, 1, 1, 101)), np.memmap)
    assert not (tmp_path / "entry" / "test_images.npy").exists()  # nobody takes an attempt for the data


def test_a_copy_of_images_that_do_not_fit_lies_on_the_disk(place, monkeypatch):
    images, chosen = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.tensor([5, 0, 3])
    monkeypatch.setattr(room, "free_bytes", lambda: 0)
    copy = room.picked(images, chosen)
    assert torch.equal(copy, images[chosen]) and not [*place.iterdir()]
    copy.zero_()
    assert images.sum() == sum(range(24))


def test_the_free_memory_is_no_more_than_the_machine_has():
    assert 0 < room.free_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("in_memory", ["on", 1, None])
def test_in_memory_is_auto_true_false_or_stream(in_memory):
    with pytest.raises(
        ValueError, match=f"^in_memory must be auto, true, false or stream, got {in_memory!r}$"
    ):
        ImageFolder(root="/", in_memory=in_memory)


def decoded_with_little_room(root: str, file_bytes: int) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        cache.load(ImageFolder(root=root, in_memory=False))
    except OSError as error:
        return str(error)
    return "it went well"


def test_a_full_disk_is_one_line_before_anything_is_decoded(place, pictures):
    said = isolated.run(decoded_with_little_room, pictures, 10_000)
    assert said.startswith(f"in_memory=false: the train images take 1 MB in {place} (or where CNNLAB_CACHE")
    assert said.endswith(": File too large") and "\n" not in said
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["lock"]


def test_a_cache_that_cannot_be_written_is_one_line_where_it_is_needed(pictures, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", "/dev/null/x")
    with pytest.raises(
        OSError, match=r"^in_memory=false: .* in /dev/null/x \(or where CNNLAB_CACHE says\): Not a dir"
    ):
        cache.load(ImageFolder(root=pictures, in_memory=False))
    assert len(cache.load(ImageFolder(root=pictures)).train[0]) == 12


def decoded_in_little_memory(root: str, in_memory: bool) -> str:
    """Whether 60 MB of images can be decoded by a process that may take 40 MB more."""
    torch.set_num_threads(1)
    import rich.progress  # noqa: F401  (not counted)

    used = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")
    )
    most = 1024 * int(used.split()[1]) + 40_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        data = cache.load(ImageFolder(root=root, size=1000, in_memory=in_memory))
        return f"{tuple(data.train[0].shape)} {data.train[0][-1].float().mean():.0f}"
    except MemoryError:
        return "no memory"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_images_larger_than_memory_are_decoded_without_it(pictures):
    answers = [isolated.run(decoded_in_little_memory, f"{pictures}/train", where) for where in (True, False)]
    assert answers[0] == "no memory" and answers[1].startswith("(12, 3, 1000, 1000) 12")


def test_more_than_the_machine_has_is_mapped_all_the_same(tmp_path):
    size = 3 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", np.dtype(np.uint8), (size,)
    )  # a hole, but for its ends
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    own = cache._for_oneself(tmp_path / "x.npy", mapped.offset, mapped.dtype)
    own[-1] = 1
    assert own.shape == (size,) and mapped[-1] == 0


def entry_in_a_process(root: str) -> str:
    code = f"""
from cnnlab.data import cache
from cnnlab.data.image_folder import ImageFolder
print(cache._entry(ImageFolder(root={root!r}), {{}}))"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_process_finds_the_same_entry(pictures, monkeypatch):
    found = set()
    for seed in "123":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.add(entry_in_a_process(pictures))
    assert len(found) == 1 and "ImageFolder-" in found.pop()


def test_a_torn_attempt_of_a_killed_process_is_swept_away(place, pictures):
    cache.load(ImageFolder(root=pictures))
    (entry,) = (path for path in place.glob("*/*/") if path.is_dir())
    torn = entry.with_name(f"{entry.name}.tmp")
    entry.rename(torn)
    np.save(torn / "train_images.npy", np.zeros(3))
    data = cache.load(ImageFolder(root=pictures))
    assert torch.equal(data.train[0], ImageFolder(root=pictures).load()[0][0])
    assert [*place.glob("*/*/")] == [entry]
