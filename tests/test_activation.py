import pytest
import torch

import cnnlab
from cnnlab.activation import AVR, CReLU, LeakyCReLU, Maxout

WORDS = cnnlab.available("activation")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("shape", [(5, 12), (5, 12, 3, 4)], ids=["dense", "maps"])
def test_expansion_tells_the_output_channels(word, shape):
    activation = cnnlab.create("activation", word)
    output = activation(torch.randn(shape))
    assert output.shape == (5, 12 * getattr(activation, "expansion", 1), *shape[2:])


@pytest.mark.parametrize("word", WORDS)
def test_gradients_agree_with_finite_differences(word, images):
    activation = cnnlab.create("activation", word).double()
    assert torch.autograd.gradcheck(activation, images.requires_grad_())


@pytest.mark.parametrize("word", WORDS)
def test_the_input_is_left_as_it_was(word, images):
    before = images.clone()
    cnnlab.create("activation", word).double()(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("word", WORDS)
def test_channels_last_stays_and_changes_nothing(word, images):
    activation = cnnlab.create("activation", word).double()
    last = activation(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, activation(images))


@pytest.mark.parametrize(
    ("word", "negative"),
    [
        ("relu", 0.0),
        ("leaky_relu", -0.02),
        ("prelu", -0.5),
        ("elu", -0.8646647168),  # e^-2 - 1
        ("selu", -1.5201664686),  # 1.0507009874 * 1.6732632423 * (e^-2 - 1)
        ("sigmoid", 0.1192029220),
        ("tanh", -0.9640275801),
        ("avr", 2.0),
    ],
)
def test_value_at_minus_two(word, negative):
    activation = cnnlab.create("activation", word).double()
    assert activation(torch.tensor([[-2.0]], dtype=torch.float64)).item() == pytest.approx(negative, abs=1e-9)


def test_crelu_halves_differ_to_the_input_and_add_to_its_absolute_value(images):
    positive, negative = CReLU()(images).chunk(2, dim=1)
    assert torch.equal(positive - negative, images)
    assert torch.equal(positive + negative, AVR()(images))
    assert (positive >= 0).all()
    assert (negative >= 0).all()


def test_leaky_crelu_is_leaky_relu_of_both_signs(images):
    leaky = torch.nn.LeakyReLU(0.3)
    assert torch.equal(LeakyCReLU(negative_slope=0.3)(images), torch.cat((leaky(images), leaky(-images)), 1))
    assert torch.equal(LeakyCReLU(negative_slope=0.0)(images), CReLU()(images))
    with pytest.raises(ValueError, match=r"^negative_slope must be a number >= 0, got -0.1$"):
        LeakyCReLU(negative_slope=-0.1)


def test_maxout_takes_the_largest_of_neighbouring_channels(images):
    slow = torch.stack([images[:, 3 * i : 3 * i + 3].amax(1) for i in range(2)], dim=1)
    assert torch.equal(Maxout(k=3)(images), slow)
    assert torch.equal(Maxout(k=1)(images), images)


def test_maxout_names_k_where_it_does_not_divide_the_channels(images):
    with pytest.raises(ValueError, match=r"^k must divide the number of channels, 6, got 4$"):
        Maxout(k=4)(images)
    with pytest.raises(ValueError, match=r"^k must be a whole number >= 1, got 0$"):
        Maxout(k=0)
