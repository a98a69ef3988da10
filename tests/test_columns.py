"""The label column's type says what a hub data set's targets are."""

import io

import numpy as np
import pytest
from PIL import Image

from cnnlab.build import build_data, module
from cnnlab.compose import Composer
from cnnlab.data.hub import Hub

datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


def write(folder, name="train.parquet", **columns):
    """Images with columns of values and their types."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(file, "PNG")
    records = {key: values for key, (_, values) in columns.items()}
    n = len(next(iter(records.values())))
    records["image"] = [{"bytes": file.getvalue(), "path": None}] * n
    features = {key: feature for key, (feature, _) in columns.items()} | {"image": datasets.Image()}
    table = datasets.Dataset.from_dict(records, features=datasets.Features(features)).data.table
    parquet.write_table(table, folder / name)
    return folder


def hub(folder, **knobs):
    source = Hub(path=str(folder), **knobs)
    (_, targets), _ = source.load()
    return source, targets.tolist()


INT, FLOAT, BOOL = (datasets.Value(kind) for kind in ("int8", "float64", "bool"))
LABEL = datasets.ClassLabel(names=["cat", "dog"])


@pytest.mark.parametrize(
    ("feature", "values", "kind", "targets", "names"),
    [
        (LABEL, [0, 1], "class", [0, 1], ["cat", "dog"]),
        (INT, [0, 1], "class", [0, 1], ["0", "1"]),
        (datasets.List(INT), [[0, 1], [1, 1]], "attributes", [[0, 1], [1, 1]], ["y.0", "y.1"]),
        (datasets.List(BOOL, length=2), [[0, 1], [1, 1]], "attributes", [[0, 1], [1, 1]], ["y.0", "y.1"]),
        (datasets.List(FLOAT), [[0, 1.5], [1, -1]], "values", [[0, 1.5], [1, -1]], ["y.0", "y.1"]),
        (datasets.List(LABEL), [[0, 1], [1, 1]], "chain", [[0, 1], [1, 1]], ["cat", "dog"]),
    ],
)
def test_the_type_of_the_column_says_what_it_holds(tmp_path, feature, values, kind, targets, names):
    source, found = hub(write(tmp_path, y=(feature, values)))
    assert (source.targets, found, source.class_names) == (kind, targets, names)


def test_a_column_of_numbers_holds_one_value_an_image(tmp_path):
    source, targets = hub(write(tmp_path, price=(FLOAT, [1.5, 2.0])))
    assert (source.targets, targets, source.class_names) == ("values", [[1.5], [2.0]], ["price.0"])


def test_of_two_columns_that_could_be_meant_one_must_be_named(tmp_path):
    write(tmp_path, number=(INT, [7, 8]), y=(datasets.List(INT), [[0, 1], [1, 1]]))
    with pytest.raises(ValueError, match=r"^label_column must be one of number, y in "):
        hub(tmp_path)
    assert hub(tmp_path, label_column="y")[1] == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (datasets.List(INT), [[0, 1], [1]], "labels must be lists of one length, got 1 and 2"),
        (datasets.List(INT), [[0, 1], None], "1 labels are missing"),
        (datasets.List(FLOAT), [[0, 1], [None, 1]], "1 labels are missing"),
        (datasets.List(FLOAT, length=2), [[0, 1], None], "labels are missing"),
        (datasets.List(INT), [[], []], "labels must not be empty"),
        (FLOAT, [0.5, None], "1 labels are missing"),
    ],
)
def test_a_broken_column_is_told_in_one_line(tmp_path, feature, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        hub(write(tmp_path, y=(feature, values)))
    assert "\n" not in str(caught.value)


def test_files_must_agree_on_what_the_targets_are(tmp_path):
    write(tmp_path, "train-00000-of-00002.parquet", y=(INT, [0, 1]))
    write(tmp_path, "train-00001-of-00002.parquet", y=(FLOAT, [0.5, 1]))
    with pytest.raises(ValueError, match="expected class as in the first file, got values"):
        hub(tmp_path)


def test_coarse_labels_reach_the_tree(tmp_path):
    fine = datasets.ClassLabel(names=["cat", "rose", "dog"])
    labels = [0, 1, 2] * 10
    write(tmp_path, fine=(fine, labels), coarse=(INT, [[4, 9, 4][label] for label in labels]))
    lines = ["dataset=hub", f"dataset.path={tmp_path}", "dataset.coarse_column=coarse", "model=linear"]
    assert build_data(Composer().one(lines)).structure == {"superclasses": [4, 9, 4]}
    task = module(*lines, "loss=hierarchical_softmax", "loss.tree=coarse")
    assert task.net.dense.out_features == 2 + 2


def test_a_class_has_one_coarse_label(tmp_path):
    write(tmp_path, fine=(LABEL, [0, 1, 1]), coarse=(INT, [4, 9, 4]))
    with pytest.raises(ValueError, match=r"^coarse_column must have one label a class, dog has 4 and 9"):
        hub(tmp_path, coarse_column="coarse")
    with pytest.raises(ValueError, match=r"^coarse_column must be one of coarse; got 'x'"):
        hub(tmp_path, coarse_column="x")


def test_a_class_without_images_has_a_coarse_label_of_its_own(tmp_path):
    names = datasets.ClassLabel(names=["cat", "unseen", "dog"])
    write(tmp_path, fine=(names, [0, 2]), coarse=(INT, [0, 0]))
    assert hub(tmp_path, coarse_column="coarse")[0].superclasses == [0, -2, 0]
