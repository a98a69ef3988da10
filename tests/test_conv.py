"""The laws of a convolution variant, over every word in conf/conv and every geometry below.

A variant that refuses a geometry by NotImplementedError is skipped there, with its reason. The laws take a
`Case`, so that the end of this file can hold them against variants that break them on purpose.
"""

import inspect
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import cnnlab
from cnnlab.conv import layers
from cnnlab.conv.geometry import dense_macs, output_hw
from cnnlab.registry import locate, node

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's, of k4_same

GEOMETRIES: dict[str, dict[str, Any]] = {
    "k1": {"kernel_size": 1},
    "k3": {"kernel_size": 3, "padding": 1},
    "one_channel": {"in_channels": 1, "kernel_size": 3, "padding": 1, "bias": False},
    "k5_stride2_valid": {"kernel_size": 5, "stride": 2, "padding": "valid"},
    "k4_same": {"kernel_size": 4, "padding": "same"},
    "k2x3_strides": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)},
    "dilated_same": {"kernel_size": 3, "dilation": 2, "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "wide": {"in_channels": 2, "out_channels": 22, "kernel_size": 3, "padding": 1},
    "reflect": {"kernel_size": 3, "padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"kernel_size": 3, "padding": 2, "padding_mode": "replicate", "stride": 2},
    "circular": {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
}
SIZE = (11, 10)


@dataclass
class Case:
    """A variant in a geometry; the same seed builds the same convolution."""

    variant: str
    geometry: str
    create: Callable[..., nn.Module]

    def build(self, seed: int = 0, **changes: Any) -> Any:
        torch.manual_seed(seed)
        return self.create(**{"in_channels": 4, "out_channels": 6, **GEOMETRIES[self.geometry], **changes})

    def stock(self) -> nn.Conv2d:
        return nn.Conv2d(**{"in_channels": 4, "out_channels": 6, **GEOMETRIES[self.geometry]})

    def input(self, examples: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
        channels = GEOMETRIES[self.geometry].get("in_channels", 4)
        # Mean 1 and scale 3: no padding looks like the data, no magnitude stays in its linear part.
        return 1 + 3 * torch.randn(examples, channels, *size, generator=torch.Generator().manual_seed(1))

    def breaks(self, law: str) -> str:
        return f"{self.variant} in geometry {self.geometry} breaks the law: {law}"


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal up to `tolerance` times the largest expected value."""
    return actual.shape == expected.shape and bool(
        ((actual - expected).abs() <= tolerance * max(1.0, expected.abs().max().item())).all()
    )


def case_of(word: str, geometry: str) -> Case:
    return Case(word, geometry, lambda **arguments: cnnlab.create("conv", word, **arguments))


@pytest.fixture(params=[(w, g) for w in cnnlab.available("conv") for g in GEOMETRIES], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    case = case_of(*request.param)
    try:
        case.build()
    except NotImplementedError as reason:
        pytest.skip(str(reason))
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
    conv = case.build()
    conv(case.input()).square().sum().backward()
    for name, parameter in conv.named_parameters():
        if parameter.requires_grad:
            gradient = torch.zeros(()) if parameter.grad is None else parameter.grad
            assert gradient.isfinite().all(), case.breaks(f"finite gradient, of {name}")
            assert gradient.any(), case.breaks(f"gradient that is not zero, of {name}")


def test_zeros_give_finite_outputs_and_gradients(case: Case) -> None:
    conv, x = case.build(), torch.zeros_like(case.input()).requires_grad_()
    y = conv(x)
    y.sum().backward()
    gradients = [p.grad for p in (x, *conv.parameters()) if p.grad is not None]
    assert all(tensor.isfinite().all() for tensor in (y, *gradients)), case.breaks("zeros do no harm")


def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    conv, x = case.build().double().eval(), case.input(2, (6, 5)).double().requires_grad_()
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
    with torch.device("meta"):
        conv = case.build()
    try:
        y = conv(case.input().to("meta"))
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


def test_a_shifted_image_gives_a_shifted_output_iff_claimed(case: Case) -> None:
    conv, stock = case.build().eval(), case.stock()
    down, right = stock.stride
    image = case.input(size=(18 + down, 17 + right))
    here, there = conv(image[..., :-down, :-right]), conv(image[..., down:, right:])
    for dim in (-2, -1):  # leave out what padding can have touched
        border = -(-stock.dilation[dim] * (stock.kernel_size[dim] - 1) // stock.stride[dim])
        length = here.shape[dim] - 2 * border - 1
        here, there = here.narrow(dim, border + 1, length), there.narrow(dim, border, length)
    claimed = getattr(conv, "equivariant", True)
    assert close(here, there) == claimed, case.breaks(f"shift iff `equivariant`, claimed {claimed}")


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

    def flops(examples: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            conv(case.input(examples))
        return counter.get_total_flops()

    macs, counted = conv.macs(SIZE), (flops(2) - flops(1)) // 2
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


# The laws themselves: each of these breaks one.

Standard = locate("cnnlab.conv.standard.StandardConv2d")
Orthogonal = locate("cnnlab.conv.orthogonal.OrthogonalConv2d")


class Mixes(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Miscounts(Standard):
    def macs(self, input_hw: tuple[int, int]) -> int:
        return super().macs(input_hw) + 1


class Rescales(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return 1.01 * super().forward(x)


class HidesThatItIsAConvolution(Standard):
    is_convolution = False


class IgnoresPaddingMode(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Bends(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class LooksAtThePosition(Standard):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * torch.arange(y.shape[-1], device=y.device)


class Detaches(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.detach(), self.bias)


class HasAWrongGradient(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) - super().forward(x).detach()


class DividesByTheNorm(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / x.norm())


class RoundsItsInput(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.bfloat16).to(x.dtype) if x.is_contiguous() else x)


class Waits(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum().item() else x


class RollsDice(Standard):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand(()))


class ForgetsItsState(Standard):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hidden = torch.rand(())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.hidden


class HasASignError(Orthogonal):
    def _orthonormal(self) -> Tensor:
        q = super()._orthonormal()  # E - V S^-1 V^T
        return 2 * torch.eye(*q.shape[-2:]) - q  # E + V S^-1 V^T


BREAKERS = [
    (Mixes, test_examples_do_not_mix, "examples do not mix"),
    (Miscounts, test_macs_are_those_that_torch_counts, "torch counts"),
    (Rescales, test_it_is_a_convolution_with_its_weight_iff_claimed, "is_convolution"),
    (HidesThatItIsAConvolution, test_it_is_a_convolution_with_its_weight_iff_claimed, "is_convolution"),
    (IgnoresPaddingMode, test_padding_mode_changes_the_output_or_is_refused, "padding_mode"),
    (Bends, test_superposition_holds_iff_claimed, "superposition"),
    (LooksAtThePosition, test_a_shifted_image_gives_a_shifted_output_iff_claimed, "shift"),
    (Detaches, test_every_parameter_gets_a_finite_gradient_that_is_not_zero, "not zero, of weight"),
    (HasAWrongGradient, test_gradients_are_those_of_finite_differences, "gradcheck"),
    (DividesByTheNorm, test_zeros_give_finite_outputs_and_gradients, "zeros do no harm"),
    (RoundsItsInput, test_bf16_and_channels_last_agree_with_fp32, "channels_last"),
    (Waits, test_it_runs_on_the_meta_device, "meta device"),
    (RollsDice, test_the_same_seed_gives_the_same_bits, "deterministic"),
    (ForgetsItsState, test_a_state_dict_a_copy_and_a_pickle_restore_it, "state_dict"),
    (HasASignError, test_the_constraint_holds_before_and_after_training, "violation"),
]


@pytest.mark.parametrize(
    ("breaker", "law", "words"), BREAKERS, ids=[breaker.__name__ for breaker, *_ in BREAKERS]
)
def test_a_law_catches_and_names_who_breaks_it(
    breaker: type, law: Callable[[Case], None], words: str
) -> None:
    with pytest.raises(
        AssertionError, match=f"{breaker.__name__} in geometry reflect breaks the law: .*{words}"
    ):
        law(Case(breaker.__name__, "reflect", breaker))
