"""Streamed images: the bits of decoded ones, by workers that nobody meets."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlab import available, create
from cnnlab.allowed import RequestError
from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.data import cache, preprocessing, room, stream
from cnnlab.data.image_folder import ImageFolder
from cnnlab.data.images import ImageData
from cnnlab.data.stream import Stream
from cnnlab.result import Result
from tests import isolated
from tests.test_image_folder import put
from tests.test_resume import same_numbers, train
from tests.test_sources import RGB, hub, png, write

LINES = ["dataset=image_folder", "dataset.size=8", "model.filters=[4]", "batch_size=8", "epochs=2"]
LINES += ["augmentation=crop_flip", "augmentation.padding=1", "preprocessing=standardize"]
LINES += ["logger=none", "threads=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
STEPS = 10  # 45 training images: 6, of 5 images the last, but a tenth is for validation


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path):
    """Coloured images of several sizes and formats, 44 and 6."""
    root = tmp_path / "pictures"
    for part, count in (("train", 22), ("test", 3)):
        for name in ("ant", "cat"):
            for number in range(count):
                suffix = ("png", "jpg")[number % 2]
                put(root / part / name / f"{number:02}.{suffix}", (9 + number % 3, 12))
    return root


def decoded(source):
    """Train and test images of a source, decoded in memory, and its labels."""
    (images, labels), test = source.load()
    return images, labels, test and test[0]


def lines(root, in_memory, output_dir, *more):
    return [
        *LINES,
        f"dataset.root={root}",
        f"dataset.in_memory={in_memory}",
        f"output_dir={output_dir}",
        *more,
    ]


def run_folder(*asked):
    return Composer().one(lines(*asked)).folder


def test_streamed_images_are_those_decoded_in_memory(pictures):
    images, labels, test_images = decoded(ImageFolder(root=str(pictures), size=8))
    for _ in range(2):  # made, and found in the cache
        data = cache.load(ImageFolder(root=str(pictures), size=8, in_memory="stream"))
        stream = data.train[0]
        assert isinstance(stream, Stream) and stream.shape == images.shape
        assert torch.equal(data.train[1], labels)
        assert torch.equal(torch.cat([*stream.split(7)]), images)
        assert torch.equal(data.test[0][:], test_images)
        assert torch.equal(stream.only(torch.tensor([5, 2, 9])).only(torch.tensor([2, 0]))[:], images[[9, 5]])


def test_streamed_hub_images_are_those_decoded_in_memory(tmp_path):
    draw = np.random.default_rng(0)
    for shard in range(2):
        images = [png(draw.integers(0, 256, RGB.shape, dtype=np.uint8)) for _ in range(12)]
        write(tmp_path / "hub" / f"train-0000{shard}-of-00002.parquet", images, [0, 1] * 6, ["cat", "dog"])
    images, labels, _ = decoded(hub(tmp_path / "hub"))
    for _ in range(2):
        data = cache.load(hub(tmp_path / "hub", in_memory="stream"))
        assert isinstance(data.train[0], Stream) and data.class_names == ["cat", "dog"]
        assert torch.equal(data.train[0][:], images) and torch.equal(data.train[1], labels)


def test_a_gray_set_with_one_coloured_image_is_streamed_in_colour(tmp_path):
    for part in ("train", "test"):
        for name in ("ant", "cat"):
            put(tmp_path / part / name / "a.png", mode="L")
    put(tmp_path / "test" / "cat" / "b.png")
    images, _, test_images = decoded(ImageFolder(root=str(tmp_path)))
    data = cache.load(ImageFolder(root=str(tmp_path), in_memory="stream"))
    assert torch.equal(data.train[0][:], images) and torch.equal(data.test[0][:], test_images)
    assert images.shape[1] == 3


def test_a_streamed_run_ends_with_the_numbers_of_one_in_memory(pictures, tmp_path, monkeypatch):
    asked = (True, tmp_path / "in_memory"), ("stream", tmp_path / "streamed")
    for in_memory, output_dir in asked:
        monkeypatch.setenv("CNNLAB_CACHE", str(output_dir / "cache"))
        assert isolated.run(train, lines(pictures, in_memory, output_dir)).status == "done"
    folders = [run_folder(pictures, *one) for one in asked]
    assert folders[0].name == folders[1].name  # in_memory says nothing of what the run is
    same_numbers(*folders)
    assert [*(tmp_path / "streamed" / "cache").rglob("*_records.npy")]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_of_an_epoch_it_goes_on_to_the_same_bits(pictures, tmp_path, signum):
    whole, struck = (lines(pictures, "stream", tmp_path / name) for name in ("whole", "struck"))
    assert isolated.run(train, whole).status == "done"
    with pytest.raises((isolated.Ended, RuntimeError)):
        isolated.run(train, struck, (7, signum))
    assert isolated.run(train, struck).status == "done"
    same_numbers(*(run_folder(pictures, "stream", tmp_path / name) for name in ("whole", "struck")))


def epoch(source, cache_folder, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(cache_folder))
    data = ImageData(source, batch_size=4, seed=3)
    data.setup()
    return data, [tensor for batch in data.train_dataloader() for tensor in batch]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_workers_changes_neither_order_nor_images(pictures, tmp_path, monkeypatch, count):
    _, expected = epoch(ImageFolder(root=str(pictures), size=8), tmp_path / "1", monkeypatch)
    monkeypatch.setattr(stream, "workers", lambda: count)
    monkeypatch.setattr("torch.utils.data.DataLoader.check_worker_number_rationality", lambda self: None)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    source = ImageFolder(root=str(pictures), size=8, in_memory="stream")
    data, found = epoch(source, tmp_path / "2", monkeypatch)
    assert isinstance(data.train_images, Stream) and isinstance(data.val[0], Stream)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # what the workers are seeded with is not drawn from it


@pytest.mark.parametrize("word", available("preprocessing"))
def test_preprocessing_learns_the_same_of_streamed_images(pictures, word, monkeypatch):
    images = decoded(ImageFolder(root=str(pictures), size=8))[0]
    monkeypatch.setattr(preprocessing, "CHUNK", 1000)  # bytes: 5 images
    streamed = cache.load(ImageFolder(root=str(pictures), size=8, in_memory="stream")).train[0]
    states = [create("preprocessing", word).fit(given).state_dict() for given in (images, streamed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_image_that_goes_bad_during_the_training_fails_the_run_in_one_line(pictures, tmp_path):
    asked = lines(pictures, "stream", tmp_path / "out")
    result = isolated.run(train_and_spoil, asked, str(pictures / "train" / "cat" / "07.jpg"))
    assert result.status == "failed" and "\n" not in result.error
    assert result.error.startswith(f"ValueError: root={pictures}: train/cat/07.jpg can't be decoded: ")


def train_and_spoil(asked, file):
    """Cut a file in half in the third step of a training."""
    from cnnlab.task.classify import Classify

    training_step = Classify.training_step

    def spoiling(self, batch, batch_idx):
        if self.global_step == 2:
            os.truncate(file, os.stat(file).st_size // 2)
        return training_step(self, batch, batch_idx)

    Classify.training_step = spoiling
    return train([*asked, "epochs=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no image", "can't be decoded: not an image"), (b"", "can't be decoded: not an image")],
)
def test_what_is_no_image_is_named_before_the_training(pictures, content, message):
    (pictures / "train" / "cat" / "07.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^root={pictures}: train/cat/07\.jpg {message}$"):
        cache.load(ImageFolder(root=str(pictures), size=8, in_memory="stream"))


def test_images_of_several_sizes_are_refused_before_the_training(pictures):
    with pytest.raises(ValueError, match=r"^size must be given .*: 9x12 and 10x12 \(root=.*ant/01\.jpg\)$"):
        cache.load(ImageFolder(root=str(pictures), in_memory="stream"))


def test_a_camera_that_was_turned_is_no_other_size(tmp_path):
    """Also where PNG tells of it behind the pixels, or where all that tells is the pixels' size."""
    tmp_path /= "pictures"
    for name, hw, orientation in (("ant", (6, 4), 1), ("bee", (4, 6), 6), ("cat", (4, 6), 8)):
        (tmp_path / name).mkdir(parents=True)
        for suffix in ("png", "jpg"):
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.new("RGB", hw[::-1], (9, 99, 0)).save(tmp_path / name / f"a.{suffix}", exif=exif)
    late = (tmp_path / "bee" / "a.png").read_bytes()
    at = late.index(b"eXIf") - 4
    chunk = late[at : at + 12 + int.from_bytes(late[at : at + 4])]
    end = late.index(b"IEND") - 4
    (tmp_path / "bee" / "a.png").write_bytes(
        late.replace(chunk, b"")[: end - len(chunk)] + chunk + late[end:]
    )
    images = decoded(ImageFolder(root=str(tmp_path)))[0]
    streamed = cache.load(ImageFolder(root=str(tmp_path), in_memory="stream")).train[0]
    assert images.shape == (6, 3, 6, 4) and torch.equal(streamed[:], images)


def test_auto_streams_what_fits_neither_memory_nor_disk(pictures, monkeypatch, caplog):
    def kind():
        return type(cache.load(ImageFolder(root=str(pictures), size=8)).train[0])

    size = 44 * 3 * 8 * 8
    monkeypatch.setattr(room, "free_bytes", lambda: 2 * size - 2)
    monkeypatch.setattr(room, "free_on_disk", lambda: 2 * size - 2)
    assert kind() is Stream and kind() is Stream
    assert not [r for r in caplog.records if "slowly" in r.getMessage() and "train" in r.getMessage()]
    monkeypatch.setattr(room, "free_on_disk", lambda: 2 * size)
    assert kind() is torch.Tensor  # now there is room: decoded once, in place of the records
    assert [r for r in caplog.records if r.getMessage().startswith("train images take 1 MB")]
    monkeypatch.setattr(room, "free_on_disk", lambda: 0)
    assert kind() is torch.Tensor  # the file is there


def test_the_warning_says_what_streaming_costs(pictures, place, caplog):
    data = ImageData(ImageFolder(root=str(pictures), size=8, in_memory="stream"), batch_size=4, seed=3)
    data.setup()
    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in told] == ["train", "test"] and str(place) in told[0]
    cost = re.match(
        r"train images are decoded again in each epoch, which takes \d+ workers? about (\S+) s;", told[0]
    )
    began = time.perf_counter()
    data.parts["train"].images[:]
    assert float(cost[1]) < 100 * (time.perf_counter() - began)


def test_records_that_find_no_room_are_one_line(pictures, place, tmp_path):
    said = isolated.run(streamed_with_little_room, str(pictures))
    assert said.startswith(
        "in_memory=stream: the train images take some room, encoded or by their names, in "
    )
    assert said.endswith(": File too large") and "\n" not in said
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["lock"]


def streamed_with_little_room(root):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        cache.load(ImageFolder(root=root, size=8, in_memory="stream"))
    except OSError as error:
        return str(error)
    return "it went well"


def streamed_in_little_memory(root):
    """The mean of 297 MB of images, read by a process that may take 150 MB more."""
    torch.set_num_threads(1)
    import rich.progress  # noqa: F401  (not counted)

    status = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * used + 150_000_000,) * 2)
    images = cache.load(ImageFolder(root=root, size=1500, in_memory="stream")).train[0]
    total = sum(float(batch[..., ::10, ::10].float().mean()) for batch in images.split(1))
    try:
        images[:]
    except MemoryError:
        return round(total / len(images)), "no memory for all of them"
    return round(total / len(images)), "memory for all of them"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_images_larger_than_memory_are_streamed_without_it(pictures):
    mean, said = isolated.run(streamed_in_little_memory, str(pictures))
    assert 120 < mean < 135 and said == "no memory for all of them"


def children(pid):
    """The processes that a process has started, and theirs."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def running(pictures, tmp_path):
    """A streamed run of a terminal's, in a process group of its own, once it has trained an epoch."""
    asked = [*lines(pictures, "stream", tmp_path / "out"), "epochs=10000"]
    command = [sys.executable, "-m", "cnnlab", *asked]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    history = Composer().one(asked).folder / "history.csv"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if history.exists() and history.read_text().count("\n") > 10 and children(process.pid):
            break
        time.sleep(0.05)
    yield process, asked
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")
def test_no_worker_outlives_a_killed_run(running):
    process, _ = running
    while not (workers := children(process.pid)):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 3
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")
def test_a_worker_that_is_killed_fails_the_run_in_one_line(running):
    process, asked = running
    while process.poll() is None:  # until one is struck while it is needed
        for worker in children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.01)
    assert process.returncode == 1
    result = Result.read(Composer().one(asked).folder)
    # torch raises it in the main process, wherever that is just then, which may make another error of it.
    assert result.status == "failed" and re.search(
        r"RuntimeError: DataLoader worker .* killed by", result.traceback
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")
def test_a_signal_to_all_processes_interrupts_the_run_after_a_checkpoint(running, signum):
    process, asked = running
    os.killpg(process.pid, signum)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + signum, said
    assert "Traceback" not in said
    result = Result.read(Composer().one(asked).folder)
    assert result.status == "interrupted"


def test_a_model_that_holds_all_images_refuses_streamed_ones_in_one_line(pictures, tmp_path):
    asked = lines(pictures, "stream", tmp_path / "out")
    asked = [line for line in asked if not line.startswith("model.")]
    config = Composer().one([*asked, "model=nearest_neighbor"])
    with pytest.raises(
        RequestError, match=r"^dataset=image_folder dataset.in_memory=stream: the images are "
    ):
        build_task(config, build_data(config))


def test_of_parts_that_move_to_a_device_the_streamed_ones_stay(pictures, monkeypatch):
    monkeypatch.setattr(room, "fits", lambda shape: shape[0] < 10)
    monkeypatch.setattr(room, "free_on_disk", lambda: 0)
    data = ImageData(ImageFolder(root=str(pictures), size=8), batch_size=4, seed=3)
    data.setup()
    data.move(torch.device("meta"))
    train, val, test = (data.parts[name] for name in ("train", "val", "test"))
    assert train.images is val.images and isinstance(train.images, Stream)
    assert train.labels.device.type == val.labels.device.type == "cpu"
    assert test.images.device.type == test.labels.device.type == "meta"
    assert not train.images.pinned and train.images.to(torch.device("cuda")).pinned
