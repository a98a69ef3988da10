"""Statistics are exact, those of the training part alone, and part of every checkpoint."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.preprocessing import StandardScaler

import cnnlab
from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.data import principal as module
from cnnlab.data.preprocessing import ChannelMean, MeanImage
from cnnlab.data.principal import PCA, Whiten, principal

WORDS = cnnlab.available("preprocessing")


def images(n=300, channels=3, side=4):
    """Correlated pixels: each image is dim or bright as a whole."""
    generator = np.random.default_rng(0)
    light = generator.uniform(0.2, 1, (n, 1, 1, 1))
    pixels = light * generator.uniform(0, 255, (n, channels, side, side))
    return torch.from_numpy(pixels.astype(np.uint8))


@pytest.mark.parametrize("word", WORDS)
def test_statistics_depend_on_the_training_part_alone(word):
    config = Composer().one([f"preprocessing={word}", "model=linear"])
    data = build_data(config)
    honest = build_task(config, data).preprocessing.state_dict()
    poisoned_images = data.parts["train"].images.clone()  # of all parts, as digits come in one
    for part in ("val", "test"):
        poisoned_images[data.parts[part].chosen] = 255
    data.parts = {name: part._replace(images=poisoned_images) for name, part in data.parts.items()}
    poisoned = build_task(config, data).preprocessing.state_dict()
    assert honest.keys() == poisoned.keys() and bool(honest) == (word != "none")
    assert all(torch.equal(honest[name], poisoned[name]) for name in honest)


@pytest.mark.parametrize("word", WORDS)
def test_a_checkpoint_brings_the_statistics_of_whatever_shape(word):
    fitted, fresh = (cnnlab.create("preprocessing", word) for _ in range(2))
    fitted.fit(images())
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(images(5)), fitted(images(5)))
    assert fresh(images(5)).dtype == torch.float32


@pytest.mark.parametrize("word", WORDS)
def test_what_is_constant_stays_finite(word):
    constant = torch.full((20, 1, 3, 3), 7, dtype=torch.uint8)
    assert cnnlab.create("preprocessing", word).fit(constant)(constant).isfinite().all()


def test_the_mean_image_and_the_channel_means_are_numpys():
    x = images().numpy().astype(float)
    width = x.max() - x.min()
    per_pixel = MeanImage().fit(images())(images()).numpy()
    per_channel = ChannelMean().fit(images())(images()).numpy()
    np.testing.assert_allclose(per_pixel, (x - x.mean(0)) / width, atol=1e-6)
    np.testing.assert_allclose(per_channel, (x - x.mean((0, 2, 3), keepdims=True)) / width, atol=1e-6)


def test_standardize_is_sklearns_scaler_of_a_channel():
    x = images(channels=1)
    scaled = StandardScaler().fit_transform(x.numpy().reshape(-1, 1).astype(float))
    ours = cnnlab.create("preprocessing", "standardize").fit(x)(x)
    np.testing.assert_allclose(ours.flatten().numpy(), scaled[:, 0], atol=1e-5)


@pytest.mark.parametrize("n", [300, 20])  # 20: fewer images than pixels
def test_the_covariance_is_numpys_and_its_axes_diagonalise_it(n):
    x = images(n)
    mean, variances, axes = principal(x)
    covariance = np.cov(x.flatten(1).numpy().astype(float), rowvar=False, bias=True)
    np.testing.assert_allclose((axes * variances @ axes.T).numpy(), covariance, atol=1e-8)
    np.testing.assert_allclose((axes.T @ axes).numpy(), np.eye(48), atol=1e-12)
    assert (variances.diff() <= 0).all() and (axes.gather(0, axes.abs().argmax(0)[None]) > 0).all()
    np.testing.assert_allclose(mean.numpy(), x.numpy().mean(0), atol=1e-12)


def test_chunks_do_not_change_a_bit(monkeypatch):
    whole = principal(images())
    monkeypatch.setattr(module, "CHUNK", 7)
    assert all(torch.equal(one, other) for one, other in zip(whole, principal(images()), strict=True))


@pytest.mark.parametrize("components", [1, 5, 48, 0.5, 0.9])
def test_pca_reconstructs_as_sklearns(components):
    x = images()
    flat = x.flatten(1).numpy().astype(float)
    theirs = SklearnPCA(components, svd_solver="full").fit(flat)
    expected = (theirs.inverse_transform(theirs.transform(flat)) - theirs.mean_) / (flat.max() - flat.min())
    pca = PCA(components=components).fit(x)
    assert pca.axes.shape[1] == theirs.n_components_
    np.testing.assert_allclose(pca(x).flatten(1).numpy(), expected, atol=1e-5)


def test_whitening_is_sklearns_up_to_n_and_signs():
    x = images()
    flat = x.flatten(1).numpy().astype(float)
    theirs = SklearnPCA(whiten=True, svd_solver="full").fit_transform(flat) * np.sqrt(300 / 299)
    ours = Whiten(kind="pca", eps=1e-12).fit(x)(x).flatten(1).numpy()
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-3)


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_whitened_training_data_has_the_identity_as_covariance(kind):
    white = Whiten(kind=kind, eps=1e-12).fit(images())(images()).flatten(1).double()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(48), atol=1e-4)


def test_zca_is_the_symmetric_whitening_and_eps_damps_it():
    matrix = Whiten(eps=0.1).fit(images()).matrix.double()
    torch.testing.assert_close(matrix, matrix.T, atol=1e-8, rtol=0)
    width = float(images().max() - images().min())
    covariance = np.cov(images().flatten(1).numpy() / width, rowvar=False, bias=True)
    expected = np.linalg.inv(covariance + 0.1 * np.eye(48))
    np.testing.assert_allclose((matrix @ matrix * width**2).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("word", ["pca", "whiten"])
def test_autocast_does_not_round_what_is_preprocessed(word):
    fitted = cnnlab.create("preprocessing", word).fit(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fitted(images(9)), fitted(images(9).float()))
        rounded = fitted(images(9))
    assert torch.equal(rounded, fitted(images(9)))


@pytest.mark.parametrize("word", ["mean_image", "pca", "whiten"])
def test_images_of_another_size_are_one_clear_line(word):
    fitted = cnnlab.create("preprocessing", word).fit(images())
    message = (
        r"images must have the shape of the training images, \(3, 4, 4\), got \(3, 5, 4\): with channel_"
    )
    with pytest.raises(ValueError, match=message):
        fitted(torch.zeros(2, 3, 5, 4))
    assert ChannelMean().fit(images())(torch.zeros(2, 3, 5, 4)).shape == (2, 3, 5, 4)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["preprocessing=pca", "preprocessing.components=65"], "components=65: must be a whole number <= 64"),
        (
            ["preprocessing=pca", "preprocessing.components=1.0"],
            "components=1.0: must be a whole number >= 1 or",
        ),
        (["preprocessing=pca", "preprocessing.components=true"], "or a fraction between 0 and 1, got True"),
        (["preprocessing=whiten", "preprocessing.eps=0"], "eps=0: must be a number > 0"),
        (["preprocessing=whiten", "preprocessing.kind=zcaa"], "did you mean 'zca'"),
    ],
)
def test_a_mistake_is_one_line(lines, message):
    from cnnlab.allowed import RequestError

    config = Composer().one([*lines, "model=linear"])
    with pytest.raises(RequestError, match=message):
        build_task(config, build_data(config))


def test_an_image_too_large_for_a_covariance_is_refused():
    with pytest.raises(ValueError, match="at most 8192 values for a covariance, got 10000"):
        principal(torch.zeros(2, 1, 100, 100, dtype=torch.uint8))
