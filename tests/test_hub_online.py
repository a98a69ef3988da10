"""dataset=hub dataset.path=OWNER/NAME, against a stand-in for huggingface.co that counts what it is asked."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import hub_jobs, isolated
from tests.hub_server import HubServer, etag

pyarrow = pytest.importorskip("pyarrow", reason="the hub extra is not installed")
parquet = pytest.importorskip("pyarrow.parquet")
# huggingface_hub reads its environment when it is imported: here only processes do so that begin after that.

ONLINE = ["dataset=hub", "dataset.path=owner/shapes"]
TINY = ["model=linear", "epochs=1", "batch_size=16", "logger=none", "threads=1"]


def shards(seed, count=40):
    """A parquet file of images of two classes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)
    records = {"image": [], "label": [n % 2 for n in range(count)]}
    for image in pixels:
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        records["image"].append({"bytes": file.getvalue(), "path": "x.png"})
    parquet.write_table(pyarrow.table(records), file := io.BytesIO())
    return file.getvalue()


TRAIN = {f"data/train-0000{n}-of-00002.parquet": shards(n) for n in range(2)}
TEST = {"data/test-00000-of-00001.parquet": shards(2, 10)}
OTHERS = {"README.md": b"#", "data/validation-00000-of-00001.parquet": b"unread", "junk/a.bin": b"unread"}
FILES = TRAIN | TEST | OTHERS
READ = [*TRAIN.values(), *TEST.values()]
FIRST, LAST = TRAIN
NEWER = FILES | {LAST: shards(7)}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, and a cache of its own for whom it is the hub: processes that begin after this."""
    with HubServer() as server:
        server.first = server.commit(FILES)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def composed(*lines):
    """Id, knobs of the data, values and override lines; or the refusal."""
    return isolated.run(hub_jobs.composed, [*ONLINE, *lines])


def found(*lines):
    """What is in the files that are read, in their order; or the refusal."""
    return isolated.run(hub_jobs.found, [*ONLINE, *lines])


def trained(tmp_path, *lines):
    """Metrics and last weights of a run."""
    return isolated.run(hub_jobs.trained, [*ONLINE, *TINY, f"output_dir={tmp_path / 'out'}", *lines])


def test_a_run_trains_on_a_repository_and_asks_only_once(hub, tmp_path):
    first = trained(tmp_path)
    assert hub.asked == {
        "revision": 1,
        "tree": hub.asked["tree"],
        **{f"{method} {file}": 1 for file in TRAIN | TEST for method in ("HEAD", "GET")},
    }
    hub.asked.clear()
    assert trained(tmp_path, "resume=false") == first
    assert found("dataset.download=false") == READ
    assert not hub.asked


def test_repro_names_the_commit_that_was_trained_on(hub, tmp_path, monkeypatch):
    trained(tmp_path)
    hub.commit(NEWER)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "another machine"))
    (run,) = (tmp_path / "out" / "default").glob("*-*")
    code, lines = isolated.run(hub_jobs.repro, str(run))
    assert code == 0
    assert f"dataset.revision={hub.first}" in lines[-1].split()


def test_a_repository_gives_what_a_folder_of_its_files_gives(hub, tmp_path):
    for file, data in (TRAIN | TEST).items():
        place = tmp_path / "folder" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    assert trained(tmp_path)[1:] == trained(tmp_path, f"dataset.path={tmp_path / 'folder'}")[1:]


def test_the_commit_is_frozen_and_stays_though_the_branch_moves(hub):
    before = composed()
    _, node, values, overrides = before
    assert node["revision"] == hub.first
    assert values["dataset.revision"] == hub.first
    assert overrides == [*ONLINE, f"dataset.revision={hub.first}"]
    newer = hub.commit(NEWER)
    assert composed() == before
    assert found() == READ
    assert composed("dataset.revision=main") == before
    after = composed(f"dataset.revision={newer}")
    assert after[0] != before[0] and after[1]["revision"] == newer
    assert found(f"dataset.revision={newer}") == [READ[0], NEWER[LAST], READ[2]]
    assert composed() == before


def test_hf_download_renews_a_branch(hub, tmp_path):
    before = composed()
    newer = hub.commit(NEWER)
    code = "import huggingface_hub as h; h.snapshot_download('owner/shapes', repo_type='dataset')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert composed()[1]["revision"] == newer != before[1]["revision"]


def test_a_commit_is_never_looked_up(hub):
    assert composed(f"dataset.revision={'0' * 40}")[1]["revision"] == "0" * 40
    assert not hub.asked
    assert "has no such branch, tag or commit" in found(f"dataset.revision={'0' * 40}")


def test_whether_to_download_is_not_what_a_run_is(hub):
    assert composed()[0] == composed("dataset.download=false")[0]


def test_composing_a_sweep_downloads_nothing(hub):
    assert isolated.run(hub_jobs.swept, [*ONLINE, "seed=0,1", "dataset.revision=null,main"]) == 2
    assert hub.asked == {"revision": 1}


def test_data_sets_of_other_kinds_ask_nothing_and_import_nothing(hub, tmp_path):
    assert isolated.run(hub_jobs.imports, ["dataset=hub", f"dataset.path={tmp_path}"]) == []
    assert not hub.asked


def test_of_the_jobs_of_a_sweep_one_downloads(hub, tmp_path):
    lines = [*ONLINE, *TINY, f"output_dir={tmp_path}", "seed=range(4)"]
    done = subprocess.run([sys.executable, "-m", "cnnlab", "-m", *lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Fetching" not in done.stderr
    assert {hub.asked[f"GET {file}"] for file in TRAIN | TEST} == {1}
    assert hub.asked["revision"] == 1


def test_a_download_that_breaks_off_is_taken_up_again(hub):
    hub.failures[FIRST] = ["breaks"]
    assert found() == READ
    assert hub.asked[f"GET {FIRST}"] == 2


def test_a_download_that_fails_leaves_no_half_file_and_is_done_later(hub, tmp_path):
    hub.failures[FIRST] = [500]
    line = found()
    assert line.startswith("dataset=hub dataset.path=owner/shapes: 127.0.0.1 answers 500")
    blobs = {path.name for path in (tmp_path / "hf").glob("hub/*/blobs/*")}
    assert blobs <= {etag(data) for file, data in FILES.items() if file != FIRST}
    assert "not whole in" in found("dataset.download=false")
    assert found() == READ


@pytest.mark.parametrize("offline", ["dataset.download=false", "HF_HUB_OFFLINE"])
def test_without_asking_only_the_cache_serves(hub, monkeypatch, offline):
    lines = [offline] if "=" in offline else []
    if not lines:
        monkeypatch.setenv(offline, "1")
    line = composed(*lines)
    assert line.startswith("dataset=hub dataset.path=owner/shapes: no such folder, and not whole in ")
    way_out = "dataset.download=true" if lines else "HF_HUB_OFFLINE=0"
    assert line.endswith(f": hf download --repo-type dataset owner/shapes, or {way_out}")
    line = found(*lines, f"dataset.revision={hub.first}")
    assert line.endswith(f"hf download --repo-type dataset owner/shapes --revision {hub.first}, or {way_out}")
    assert not hub.asked
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert found() == READ
    if not lines:
        monkeypatch.setenv(offline, "1")
    assert found(*lines) == READ


def test_a_corrupt_file_is_named(hub, tmp_path):
    hub.commit(FILES | {FIRST: b"PAR1" * 50})
    says = rf"Error: dataset=hub dataset.path=owner/shapes: {FIRST}: expected a whole parquet file.*\n$"
    with pytest.raises(RuntimeError, match=says):
        trained(tmp_path)


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        ((401, "RepoNotFound"), "no such folder, and 127.0.0.1 has no such data set; if it is private"),
        ((403, "GatedRepo"), "no such folder, and 127.0.0.1 asks for consent to terms: give it at http"),
        ((503, ""), "no such folder, and 127.0.0.1 answers 503 Service Unavailable"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, refusal, line):
    hub.refusal = refusal
    assert composed().startswith(f"dataset=hub dataset.path=owner/shapes: {line}")


def test_data_that_came_to_be_gated_are_one_line(hub):
    commit = composed()[1]["revision"]
    hub.refusal = 403, "GatedRepo"
    says = "dataset=hub dataset.path=owner/shapes: 127.0.0.1 asks for consent to terms"
    assert found(f"dataset.revision={commit}").startswith(says)


def test_a_mistyped_folder_is_told_both_ways(hub):
    line = isolated.run(hub_jobs.composed, ["dataset=hub", "dataset.path=data/cifar10"])
    assert line.startswith("dataset=hub dataset.path=data/cifar10: no such folder, and 127.0.0.1 has no such")


def test_no_network_is_one_line(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    line = "dataset=hub dataset.path=owner/shapes: no such folder, and 127.0.0.1 does not answer"
    assert composed() == line


def test_an_unknown_branch_is_named(hub):
    line = "dataset=hub dataset.revision=devel: owner/shapes has no such branch, tag or commit"
    assert composed("dataset.revision=devel") == line
    line = "dataset=hub dataset.revision=1.0: must be a word, got 1.0"
    assert composed("dataset.revision=1.0") == line


def test_a_revision_of_a_folder_is_refused(hub, tmp_path):
    assert "revision=main: must be null for a path" in found(
        f"dataset.path={tmp_path}", "dataset.revision=main"
    )


def test_data_of_other_formats_are_found_in_the_hubs_conversion(hub):
    hub.commit({"train.csv": b"a,b"})
    says = "expected train-*.parquet, found none; dataset.revision=refs/convert/parquet may have them"
    assert found().endswith(says)
    converted = {f"default/train/000{n}.parquet": data for n, data in enumerate(TRAIN.values())}
    converted |= {"default/test/0000.parquet": shards(2, 10)}
    commit = hub.commit(converted, "refs/convert/parquet")
    assert composed("dataset.revision=refs/convert/parquet")[1]["revision"] == commit
    assert found("dataset.revision=refs/convert/parquet") == READ


def test_of_several_configs_one_is_to_be_named(hub):
    files = {f"{name}/train-0.parquet": shards(seed) for seed, name in enumerate(("large", "small"))}
    hub.commit(files)
    assert found() == "dataset=hub dataset.config=null: must be one of large, small; got 'null'"
    assert found("dataset.config=large") == [files["large/train-0.parquet"]]
    assert found("dataset.config=small") == [files["small/train-0.parquet"]]
    assert hub.asked["GET large/train-0.parquet"] == hub.asked["GET small/train-0.parquet"] == 1


def test_a_class_that_derives_from_hub_is_pinned_too(hub, tmp_path):
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "my_hub.py").write_text("from cnnlab.data.hub import Hub\nclass Mine(Hub): pass\n")
    (tmp_path / "mine" / "dataset" / "mine.yaml").write_text(
        "_target_: my_hub.Mine\npath: owner/shapes\nrevision: null\n"
    )
    assert isolated.run(hub_jobs.pinned_by, str(tmp_path)) == hub.first
