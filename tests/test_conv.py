"""The laws of a convolution variant, over every word in conf/conv and every geometry of conv_case.py."""

import inspect
import pickle
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import cnnlab
from cnnlab.bench.duel import counted_by_torch
from cnnlab.conv import layers
from cnnlab.conv.geometry import dense_macs, output_hw
from cnnlab.registry import locate, node
from tests.conv_case import GEOMETRIES, SIZE, Case

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's, of k4_same


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal up to `tolerance` times the largest expected value."""
    return actual.shape == expected.shape and bool(
        ((actual - expected).abs() <= tolerance * max(1.0, expected.abs().max().item())).all()
    )


def case_of(word: str, geometry: str) -> Case:
    dilation = node("conv", word).get("dilation", 1)
    return Case(word, geometry, lambda **arguments: cnnlab.create("conv", word, **arguments), dilation)


@pytest.fixture(params=[(w, g) for w in cnnlab.available("conv") for g in GEOMETRIES], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    """A variant that refuses a geometry by NotImplementedError is skipped there, with its reason."""
    case = case_of(*request.param)
    try:
        case.build()
    except NotImplementedError as reason:
        pytest.skip(f"{case.variant} in geometry {case.geometry}: {reason}")
    return case


@pytest.mark.parametrize("word", cnnlab.available("conv"))
def test_the_constructor_is_that_of_conv2d_plus_keyword_only_knobs(word: str) -> None:
    parameters = list(inspect.signature(locate(node("conv", word)["_target_"])).parameters.values())
    stock = list(inspect.signature(nn.Conv2d).parameters.values())[:9]  # the rest are device and dtype
    assert [(p.name, p.default) for p in parameters[:9]] == [(p.name, p.default) for p in stock], word
    knobs = [p for p in parameters[9:] if p.name not in ("device", "dtype")]
    assert all(p.kind is p.KEYWORD_ONLY for p in knobs), f"{word}: a knob is not keyword-only"


def test_the_output_has_the_shape_of_conv2d(case: Case) -> None:
    assert case.build()(case.input()).shape == case.stock()(case.input()).shape, case.breaks(
        "shape of nn.Conv2d"
    )


def test_examples_do_not_mix(case: Case) -> None:
    conv, x = case.build().eval(), case.input(3)
    alone = torch.cat([conv(example) for example in x.split(1)])
    assert close(conv(x), alone), case.breaks("examples do not mix")


def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(case: Case) -> None:
    conv, x = case.build(), case.input().requires_grad_()
    conv(x).square().sum().backward()
    for name, parameter in [("the input", x), *conv.named_parameters()]:
        if parameter.requires_grad:
            gradient = torch.zeros(()) if parameter.grad is None else parameter.grad
            assert gradient.isfinite().all(), case.breaks(f"finite gradient, of {name}")
            assert gradient.any(), case.breaks(f"gradient that is not zero, of {name}")
        else:
            assert parameter.grad is None, case.breaks(f"no gradient for what is frozen, {name}")


def test_zeros_give_finite_outputs_and_gradients(case: Case) -> None:
    conv, x = case.build(), torch.zeros_like(case.input()).requires_grad_()
    y = conv(x)
    y.sum().backward()
    gradients = [p.grad for p in (x, *conv.parameters()) if p.grad is not None]
    assert all(tensor.isfinite().all() for tensor in (y, *gradients)), case.breaks("zeros do no harm")


def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    conv, x = case.build().double().eval(), case.input().double().requires_grad_()
    parameters = {name: p for name, p in conv.named_parameters() if p.requires_grad}

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(conv, dict(zip(parameters, values, strict=True)), (x,))

    right = torch.autograd.gradcheck(
        forward, (x, *parameters.values()), fast_mode=True, raise_exception=False
    )
    assert right, case.breaks("gradcheck")


def test_a_state_dict_a_copy_and_a_pickle_restore_it(case: Case) -> None:
    conv, x, other = case.build(), case.input(), case.build(seed=1)
    other.load_state_dict(conv.state_dict())
    copies = other, deepcopy(conv), pickle.loads(pickle.dumps(conv))
    for copy, law in zip(copies, ("state_dict round trip", "deepcopy", "pickle"), strict=True):
        assert torch.equal(copy.eval()(x), conv.eval()(x)), case.breaks(law)


def test_bf16_and_channels_last_agree_with_fp32(case: Case) -> None:
    conv, x = case.build().eval(), case.input()
    expected = conv(x)
    conv, x = conv.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    assert close(conv(x), expected), case.breaks("channels_last agrees with NCHW")
    with torch.autocast("cpu", torch.bfloat16):
        assert close(conv(x), expected, 0.03), case.breaks("bf16 autocast agrees with fp32")


def test_the_same_seed_gives_the_same_bits(case: Case) -> None:
    results = []
    for seed in range(2):
        conv, x = case.build().eval(), case.input().requires_grad_()
        torch.manual_seed(seed)  # the forward pass draws nothing
        y = conv(x)
        y.square().sum().backward()
        results.append([y, *(tensor.grad for tensor in (x, *conv.parameters()) if tensor.grad is not None)])
    assert all(map(torch.equal, *results)), case.breaks("deterministic")


def test_it_runs_on_the_meta_device(case: Case) -> None:
    """Where there are no values, whatever waits for one or brings a tensor of another device fails."""
    expected = case.build()(case.input()).shape
    try:
        with torch.device("meta"):
            conv = case.build()
        y = conv(case.input().to("meta").requires_grad_())
        y.sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        raise AssertionError(f"{case.breaks('runs on the meta device')}: {error}") from error
    assert (y.device.type, y.shape) == ("meta", expected), case.breaks("runs on the meta device")


def test_superposition_holds_iff_claimed(case: Case) -> None:
    conv = case.build().eval()
    x, y = case.input(4).chunk(2)
    zero = conv(torch.zeros_like(x))
    holds = close(conv(2 * x - 3 * y) - zero, 2 * (conv(x) - zero) - 3 * (conv(y) - zero))
    claimed = getattr(conv, "linear", False)
    assert holds == claimed, case.breaks(f"superposition iff `linear`, claimed {claimed}")


def test_a_linear_variant_knows_how_much_it_can_stretch_an_image(case: Case) -> None:
    size = (12, 11)
    conv, zero = case.build(size=size).double().eval(), torch.zeros_like(case.input(1, size)).double()
    if not getattr(conv, "linear", False):
        assert not hasattr(conv, "lipschitz"), case.breaks("lipschitz() iff `linear`")
        return
    columns = torch.eye(zero.numel(), dtype=torch.float64).view(-1, *zero.shape[1:])
    matrix = (conv(columns) - conv(zero)).flatten(1)  # of the operator, transposed
    largest = torch.linalg.matrix_norm(matrix, 2).item()
    assert conv.lipschitz(size) == pytest.approx(largest, rel=1e-4), case.breaks("lipschitz() is the norm")


def test_a_shifted_image_gives_a_shifted_output_iff_claimed(case: Case) -> None:
    """A small object on zeros, which look the same in every padding, moves by one stride."""
    conv, (down, right) = case.build(size=(40, 38)).eval(), case.stock().stride
    image = torch.zeros_like(case.input(size=(40 + down, 38 + right)))
    image[..., 18:23, 17:22] = case.input(size=(5, 5))
    here, there = conv(image[..., :-down, :-right]), conv(image[..., down:, right:])
    claimed = getattr(conv, "equivariant", True)
    assert close(here[..., 1:, 1:], there[..., :-1, :-1]) == claimed, case.breaks(
        f"shift iff `equivariant`, claimed {claimed}"
    )


def test_it_is_a_convolution_with_its_weight_iff_claimed(case: Case) -> None:
    conv, x = case.build().eval(), case.input()
    y, weight, claimed = conv(x), getattr(conv, "weight", None), getattr(conv, "is_convolution", False)
    stock = case.stock()
    mode = "constant" if stock.padding_mode == "zeros" else stock.padding_mode
    padded = F.pad(x, stock._reversed_padding_repeated_twice, mode)
    try:
        expected = F.conv2d(padded, weight, conv.bias, stock.stride, 0, stock.dilation, conv.groups)
        holds = close(y, expected)
    except (RuntimeError, TypeError):  # no weight of that form
        holds = False
    assert holds == claimed, case.breaks(f"F.conv2d with its weight iff `is_convolution`, claimed {claimed}")


def test_the_constraint_holds_before_and_after_training(case: Case) -> None:
    conv = case.build()
    if not hasattr(conv, "violation"):
        assert "orthogonal" not in case.variant, case.breaks("what is called orthogonal has violation()")
        return
    tolerance = getattr(conv, "tolerance", 1e-5)
    assert float(conv.violation()) <= tolerance, case.breaks("violation() is 0 at the start")
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        conv(case.input()).square().mean().backward()
        optimizer.step()
    assert float(conv.violation()) <= tolerance, case.breaks("violation() is 0 after 5 steps")


def test_macs_are_those_that_torch_counts(case: Case) -> None:
    conv = case.build().eval()

    macs, counted = conv.macs(SIZE), counted_by_torch(conv, (case.arguments["in_channels"], *SIZE))
    assert isinstance(macs, int), case.breaks("macs() is a whole number")
    assert macs > 0, case.breaks("macs() is above 0")
    assert macs == counted or not counted, case.breaks(f"macs() = {macs}, but torch counts {counted}")


def test_padding_mode_changes_the_output_or_is_refused(case: Case) -> None:
    padding = GEOMETRIES[case.geometry].get("padding", 1)
    padding = 1 if padding == "valid" else padding
    zeros = case.build(padding=padding, padding_mode="zeros").eval()(case.input())
    for mode in ("reflect", "replicate", "circular"):
        try:
            conv = case.build(padding=padding, padding_mode=mode).eval()
        except NotImplementedError:
            continue
        assert not close(conv(case.input()), zeros), case.breaks(f"padding_mode={mode} changes the output")


def test_layers_are_the_outermost_convolutions() -> None:
    class Wrapped(nn.Module):
        in_channels, out_channels, kernel_size = 3, 4, (1, 1)

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 1)

    shared = nn.Conv2d(4, 4, 1)
    net = nn.Sequential(
        Wrapped(), nn.MaxPool2d(2), nn.ModuleDict({"a": shared, "b": shared}), nn.Linear(4, 4)
    )
    assert list(layers(net)) == ["0", "2.a"]
    assert layers(net)["2.a"] is shared
    assert list(layers(shared)) == [""]
    assert layers(nn.ReLU()) == {}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_output_size_and_macs_are_those_of_conv2d(geometry: str) -> None:
    conv = case_of("standard", geometry).build()
    y = conv(case_of("standard", geometry).input())
    assert output_hw(conv, SIZE) == y.shape[-2:]
    assert dense_macs(conv, SIZE) == y[0].numel() * conv.weight[0].numel()
