"""Templates are what pixels are compared with; pictures have the data's images in their places."""

import numpy as np
import pytest
import torch
from PIL import Image

from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.monitor.filters import GAP, filter_grid
from cnnlab.monitor.templates import preprocessed, templates
from cnnlab.train import train
from cnnlab.verbs.evaluate import main as evaluate


def task_of(*lines):
    config = Composer().one(["model=linear", *lines])
    data = build_data(config)
    return build_task(config, data), data


@pytest.mark.parametrize("word", ["none", "standardize", "mean_image", "whiten"])
def test_a_template_times_an_image_is_the_score_but_for_a_constant(word):
    task, data = task_of(f"preprocessing={word}")
    images = data.val[0][:9].float()
    gradients = torch.autograd.functional.jacobian(lambda x: task(x)[0], images[:1])[:, 0]
    offset = task(images) - images.flatten(1) @ gradients.flatten(1).T
    torch.testing.assert_close(offset, offset[:1].expand(9, -1), atol=1e-4, rtol=1e-4)
    assert np.array_equal(templates(task, data.val[0]), filter_grid(gradients))


def test_without_preprocessing_templates_are_the_weights():
    task, data = task_of("preprocessing=none")
    weights = task.net.dense.weight.view(10, 1, 8, 8)
    assert np.array_equal(templates(task, data.val[0]), filter_grid(weights))


def test_eight_images_stand_above_what_becomes_of_them():
    task, data = task_of("preprocessing=unit_range")
    grid = preprocessed(task, data.val[0])
    assert grid.shape == (2 * (32 + GAP) + GAP, 8 * (32 + GAP) + GAP, 3)
    upper, lower = grid[GAP:][:32], grid[GAP + 32 + GAP :][:32]
    assert np.array_equal(upper, lower)  # each is scaled to its own range, so nothing is seen of a new one
    first = data.val[0][0, 0].repeat_interleave(4, 0).repeat_interleave(4, 1) / data.val[0][0].max()
    assert np.array_equal(upper[:, GAP:][:, :32, 0], (first * 255).round().byte())


def test_evaluate_draws_them_into_the_run_folder(tmp_path):
    lines = ["model=linear", "epochs=1", "logger=none", "threads=1", f"output_dir={tmp_path}"]
    config = Composer().one(lines)
    train(config)
    assert evaluate([str(config.folder)]) == 0
    for name, size in (("preprocessing", (274, 70)), ("templates", (138, 104))):
        with Image.open(config.folder / f"{name}.png") as picture:
            assert picture.size == size
