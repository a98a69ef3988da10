"""CIFAR's archives in small: the four true formats, unpacked or not; damaged ones."""

import gzip
import hashlib
import io
import os
import pickle
import re
import tarfile

import numpy as np
import pytest

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.data.cifar import CIFAR10, CIFAR100
from cnnlab.train import train
from tests.web import Web

NAMES = {
    "cifar10": {"class": [*"abcdefghij"]},
    "cifar100": {"coarse": [f"kind{i}" for i in range(20)], "fine": [f"thing{i}" for i in range(100)]},
}
COARSE = np.arange(100, dtype=np.uint8) * 7 % 20  # the superclass of each class
SOURCES = {"cifar10": CIFAR10, "cifar100": CIFAR100}
FORMS = [(word, form) for word in SOURCES for form in (0, 1)]


def written(word, form, seed=0, count=4):
    """The files of a version, and the pixels and labels in each of its batches."""
    version, names = SOURCES[word].versions[form], NAMES[word]
    draw = np.random.default_rng(seed)
    batches, files = {}, {}
    for name in (*version.train, version.test):
        pixels = draw.integers(0, 256, (count, 3072), dtype=np.uint8)
        kind, words = [*names.items()][-1]
        labels = {kind: draw.integers(0, len(words), count, dtype=np.uint8)}
        if word == "cifar100":
            labels = {"coarse": COARSE[labels["fine"]], **labels}
        batches[name] = pixels.reshape(-1, 3, 32, 32), labels
        if form == 0:
            files[name] = np.column_stack([*labels.values(), pixels]).tobytes()
        else:
            content = {version.keys[kind][0]: [int(n) for n in numbers] for kind, numbers in labels.items()}
            content |= {b"data": pixels, b"filenames": [b"x.png"] * count}
            files[name] = pickle.dumps(content, protocol=2)
    if form == 0:
        files |= {version.names[kind]: "\n".join([*words, ""]).encode() for kind, words in names.items()}
    else:
        content = {version.keys[kind][1]: [word.encode() for word in words] for kind, words in names.items()}
        files[version.meta] = pickle.dumps(content, protocol=2)
    return version, files, batches


def packed(version, files, path):
    """An archive of the files; the source is told its checksum."""
    with tarfile.open(path / version.archive.name, "w:gz") as tar:
        for name, data in {"readme.html": b"<html>", **files}.items():
            member = tarfile.TarInfo(f"{version.folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return hashlib.md5((path / version.archive.name).read_bytes()).hexdigest()


def known(monkeypatch, word, md5, mirrors=("http://127.0.0.1:9/",)):
    """The source with the checksum and the mirrors of the small archives."""
    versions = SOURCES[word].versions
    changed = [v._replace(archive=v.archive._replace(md5=md5, mirrors=mirrors)) for v in versions]
    monkeypatch.setattr(SOURCES[word], "versions", tuple(changed))


def check(source, version, batches, kind):
    (images, labels), (test_images, test_labels) = source.load()
    train = [batches[name] for name in version.train]
    assert np.array_equal(images, np.concatenate([pixels for pixels, _ in train]))
    assert np.array_equal(labels, np.concatenate([labels[kind] for _, labels in train]))
    assert np.array_equal(test_images, batches[version.test][0])
    assert np.array_equal(test_labels, batches[version.test][1][kind])
    assert source.class_names == NAMES[source.name][kind]
    if kind == "fine":
        seen = {int(label) for _, labels in batches.values() for label in labels["fine"]}
        assert source.superclasses == [int(COARSE[n]) if n in seen else -1 - n for n in range(100)]
    else:
        assert source.superclasses is None


@pytest.mark.parametrize(("word", "form"), FORMS)
@pytest.mark.parametrize("shape", ["archive", "unpacked", "root"])
def test_every_form_gives_the_images_and_labels_that_were_put_in(monkeypatch, tmp_path, word, form, shape):
    version, files, batches = written(word, form)
    if shape == "archive":
        known(monkeypatch, word, packed(version, files, tmp_path))
    else:
        folder = tmp_path / version.folder if shape == "unpacked" else tmp_path
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    for kind in NAMES[word]:
        knobs = {"labels": kind} if word == "cifar100" else {}
        check(SOURCES[word](root=str(tmp_path), download=False, **knobs), version, batches, kind)


def test_the_binary_archive_is_downloaded_where_nothing_is_there(monkeypatch, tmp_path):
    offered, share = tmp_path / "offered", tmp_path / "share"
    offered.mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(share))
    version, files, batches = written("cifar10", 0)
    md5 = packed(version, files, offered)
    with Web(offered) as web:
        known(monkeypatch, "cifar10", md5, (web.url,))
        check(CIFAR10(), version, batches, "class")
        check(CIFAR10(download=False), version, batches, "class")
        assert web.asked == {version.archive.name: 1}
    assert (share / "datasets" / "cifar10" / version.archive.name).is_file()


@pytest.mark.parametrize(("word", "form"), FORMS)
def test_an_archive_with_one_flipped_bit_is_refused_by_name(monkeypatch, tmp_path, word, form):
    version, files, _ = written(word, form)
    known(monkeypatch, word, packed(version, files, tmp_path))
    path = tmp_path / version.archive.name
    whole = path.read_bytes()
    for place in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"{version.archive.name} is damaged"):
            SOURCES[word](root=str(tmp_path)).load()


@pytest.mark.parametrize(("word", "form"), FORMS)
def test_damage_that_the_checksum_knows_nothing_of_is_one_line_that_names_the_file(
    monkeypatch, tmp_path, word, form
):
    version, files, _ = written(word, form)
    folder = tmp_path / version.folder
    folder.mkdir()
    for name, data in files.items():
        if name == "coarse_label_names.txt":
            continue  # the fine ones are asked for
        for wrong in (data[:-1], b"", b"\x00garbage"):
            for each, whole in files.items():
                (folder / each).write_bytes(wrong if each == name else whole)
            if name.endswith(".txt") and wrong == data[:-1]:
                continue  # lacks its last line's end alone
            with pytest.raises(ValueError, match=re.escape(name)) as refused:
                SOURCES[word](root=str(tmp_path), download=False).load()
            assert "\n" not in str(refused.value)


def test_a_torn_archive_is_refused_by_name(monkeypatch, tmp_path):
    version, files, _ = written("cifar10", 0)
    packed(version, files, tmp_path)
    path = tmp_path / version.archive.name
    whole = path.read_bytes()
    for torn in (whole[: len(whole) // 2], b"no archive", gzip.compress(b"no archive")):
        path.write_bytes(torn)
        known(monkeypatch, "cifar10", hashlib.md5(torn).hexdigest())
        with pytest.raises(ValueError, match=version.archive.name) as refused:
            CIFAR10(root=str(tmp_path)).load()
        assert "\n" not in str(refused.value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_pickle_that_would_run_code_is_refused(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    _, files, _ = written("cifar10", 1)
    for each, data in files.items():
        (tmp_path / each).write_bytes(pickle.dumps({b"data": Evil()}) if each == name else data)
    with pytest.raises(ValueError, match=rf"{name}: .*names (posix|nt).system, and only arrays are admitted"):
        CIFAR10(root=str(tmp_path)).load()
    assert not (tmp_path / "evil").exists()


def test_a_label_out_of_range_is_refused(tmp_path):
    _, files, _ = written("cifar10", 0)
    for name, data in files.items():
        (tmp_path / name).write_bytes(b"\x0a" + data[1:] if name == "data_batch_2.bin" else data)
    with pytest.raises(ValueError, match=r"data_batch_2.bin: class labels must be 0\.\.9, got \d\.\.10"):
        CIFAR10(root=str(tmp_path)).load()


@pytest.mark.parametrize("form", [0, 1])
def test_a_class_of_two_superclasses_is_refused(tmp_path, form):
    _, files, _ = written("cifar100", form)
    if form == 0:
        files["train.bin"], files["test.bin"] = (
            bytes([coarse, 7]) + data[2:3074]
            for coarse, data in ((3, files["train.bin"]), (5, files["test.bin"]))
        )
    else:
        for name, coarse in (("train", 3), ("test", 5)):
            content = pickle.loads(files[name])
            files[name] = pickle.dumps(content | {b"coarse_labels": [coarse] * 4, b"fine_labels": [7] * 4})
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"root=.*: expected one coarse label a class, thing7 has 3 and 5$"):
        CIFAR100(root=str(tmp_path)).load()
    source = CIFAR100(root=str(tmp_path), labels="coarse")
    assert source.load()[1][1].unique().tolist() == [5]


@pytest.mark.parametrize("form", [0, 1])
def test_a_run_descends_the_tree_of_the_superclasses(tmp_path, form):
    _, files, _ = written("cifar100", form, count=200)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    lines = ["dataset=cifar100", f"dataset.root={tmp_path}", "loss=hierarchical_softmax", "loss.tree=coarse"]
    lines += ["model=linear", "epochs=1", "trainer.max_steps=1", "trainer.accelerator=cpu", "threads=1"]
    config = Composer().one([*lines, "logger=none", f"output_dir={tmp_path}"])
    assert train(config).status == "done"
    assert cnnlab.load(config.folder).net.dense.out_features == 20 + 100  # at the root, and below it
    with pytest.raises(RequestError, match=r"loss\.tree=coarse: must be balanced where the data have no"):
        train(Composer().one([*lines, "dataset.labels=coarse"]))


def test_what_is_missing_is_said_with_its_place(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"root=.*: no file cifar-100-binary.tar.gz; download https://"
    ):
        CIFAR100(root=str(tmp_path), download=False).load()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        CIFAR100(root=str(tmp_path / "nowhere")).load()
    with pytest.raises(ValueError, match="labels must be one of fine, coarse; got 'both'"):
        CIFAR100(labels="both")
