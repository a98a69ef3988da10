"""The laws of tests/test_conv.py catch and name each of these variants, which breaks one on purpose."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlab.registry import locate
from tests import test_conv as laws
from tests.conv_case import Case

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


class TakesTheFilterNormForItsOwn(Standard):
    def lipschitz(self, input_hw: tuple[int, int]) -> float:
        return self.weight.flatten(1).norm().item()


class HasASignError(Orthogonal):
    def _orthonormal(self) -> Tensor:
        q = super()._orthonormal()  # E - V S^-1 V^T
        return 2 * torch.eye(*q.shape[-2:]) - q  # E + V S^-1 V^T


BREAKERS = [
    (Mixes, laws.test_examples_do_not_mix, "examples do not mix"),
    (Miscounts, laws.test_macs_are_those_that_torch_counts, "torch counts"),
    (Rescales, laws.test_it_is_a_convolution_with_its_weight_iff_claimed, "is_convolution"),
    (HidesThatItIsAConvolution, laws.test_it_is_a_convolution_with_its_weight_iff_claimed, "is_convolution"),
    (IgnoresPaddingMode, laws.test_padding_mode_changes_the_output_or_is_refused, "padding_mode"),
    (Bends, laws.test_superposition_holds_iff_claimed, "superposition"),
    (LooksAtThePosition, laws.test_a_shifted_image_gives_a_shifted_output_iff_claimed, "shift"),
    (Detaches, laws.test_every_parameter_gets_a_finite_gradient_that_is_not_zero, "not zero, of weight"),
    (HasAWrongGradient, laws.test_gradients_are_those_of_finite_differences, "gradcheck"),
    (DividesByTheNorm, laws.test_zeros_give_finite_outputs_and_gradients, "zeros do no harm"),
    (RoundsItsInput, laws.test_bf16_and_channels_last_agree_with_fp32, "channels_last"),
    (Waits, laws.test_it_runs_on_the_meta_device, "meta device"),
    (RollsDice, laws.test_the_same_seed_gives_the_same_bits, "deterministic"),
    (ForgetsItsState, laws.test_a_state_dict_a_copy_and_a_pickle_restore_it, "state_dict"),
    (
        TakesTheFilterNormForItsOwn,
        laws.test_a_linear_variant_knows_how_much_it_can_stretch_an_image,
        "is the norm",
    ),
    (HasASignError, laws.test_the_constraint_holds_before_and_after_training, "violation"),
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
