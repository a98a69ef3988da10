"""What decoupled convolutions share: a response is a magnitude times a function of the angle.

    f(w, x) = h(|x|) g(theta) + bias,  theta = angle(w, x),  x a patch;  nn.Conv2d: |w| |x| cos(theta) + bias

Source: Liu et al. 2018, Decoupled Networks, arXiv:1804.08071, and its code (wy1iu/DCNets); the angular
activations linear and sigmoid: Liu et al. 2017, Deep Hyperspherical Learning, arXiv:1711.03189.
Differs: the paper's operators have no bias (bias=False); here it is added after the operator. A patch or a
filter of zeros has no angle and responds with 0; the code adds 1e-4 to squared norms instead.
"""

import inspect
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from cnnlab.allowed import number, one_of, truth
from cnnlab.conv.geometry import PaddingMode, dense_macs
from cnnlab.conv.patch_norm import patch_norm, smallest

Angular = Literal["cosine", "linear", "sigmoid", "square_cosine"]
Weighting = Literal["none", "linear", "joint_tanh", "product_tanh"]
Radius = Literal["absolute", "relative"]

EMA_DECAY = 0.999  # of the running mean norm, as in the official code


class DecoupledConv2d(nn.Conv2d, ABC):
    """Constructor and forward pass of the decoupled convolutions; a subclass gives h as `gain`.

    angular: cosine cos(t); linear 1 - 2t/pi; sigmoid tanh((pi/2 - t) / 2k) / tanh(pi / 4k), k = `sigmoid_k`;
    square_cosine sign(cos t) cos(t)^2. Each falls from 1 at t = 0 over 0 at pi/2 to -1 at pi.
    weighting: none drops |w|; linear multiplies by |w|. Tanh alone has joint_tanh, alpha tanh(|x||w|/rho) g,
    and product_tanh, f tanh(|w|/weight_rho), where weight_rho is rho unless given.
    learnable_rho: each filter trains its own rho, as exp(log_rho); the code has r^2 + 1e-4.
    radius: absolute is rho; relative is rho times the mean patch norm of the layer's input, in training that
    of the batch (through which its examples mix), else its running mean (1 until a batch was seen).

    Raises: ValueError for a knob that is not at its default and that the formula lacks.
    """

    linear = False
    equivariant = True
    is_convolution = False
    macs = dense_macs
    knobs: ClassVar[set[str]] = set()  # those of beta, rho, learnable_rho, radius that the formula has
    weightings: ClassVar[tuple[str, ...]] = ("none", "linear")
    running_norm: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        angular: Angular = "cosine",
        sigmoid_k: float = 0.3,
        alpha: float = 1.0,
        beta: float = 0.5,
        rho: float = 1.0,
        learnable_rho: bool = False,
        radius: Radius = "absolute",
        weighting: Weighting = "none",
        weight_rho: float | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.angular = one_of("angular", angular, get_args(Angular))
        self.sigmoid_k = number("sigmoid_k", sigmoid_k, above=0)
        self.alpha = number("alpha", alpha, above=0)
        self.beta = number("beta", beta, at_least=0)
        self.initial_rho = number("rho", rho, above=0)
        self.radius = one_of("radius", radius, get_args(Radius))
        self.weighting = one_of("weighting", weighting, self.weightings)
        self.weight_rho = rho if weight_rho is None else number("weight_rho", weight_rho, above=0)
        truth("learnable_rho", learnable_rho)
        for knob in ("alpha", "beta", "initial_rho", "weight_rho", "sigmoid_k"):
            if math.isinf(getattr(self, knob)):
                raise ValueError(f"{knob.removeprefix('initial_')} must be finite, got inf")
        self._refuse_unused(beta=beta, rho=rho, learnable_rho=learnable_rho, radius=radius)
        if angular != "sigmoid":
            self._refuse_unused(sigmoid_k=sigmoid_k)
        if weighting != "product_tanh":
            self._refuse_unused(weight_rho=weight_rho)
        if learnable_rho:
            self.log_rho = nn.Parameter(torch.full((out_channels,), math.log(rho)))
        if radius == "relative":
            self.register_buffer("running_norm", torch.zeros(()))  # 0: no batch seen

    def _refuse_unused(self, **values: Any) -> None:
        for knob, value in values.items():
            default = inspect.signature(type(self)).parameters[knob].default
            if knob not in self.knobs and value != default:
                formula = f"{type(self).__name__} with angular={self.angular}, weighting={self.weighting}"
                raise ValueError(f"{knob} must be left at {default}, got {value}: {formula} has no {knob}")

    @abstractmethod
    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        """h(norm) / norm for a positive norm."""

    def forward(self, x: Tensor) -> Tensor:
        cosine = self.angular == "cosine"  # then |x| g(theta) is a convolution: no angle is needed
        length = self._filter_norm()  # (out, 1, 1)
        products = self._conv_forward(x, self._filters(length) if cosine else self._directions(length), None)
        norm = size = patch_norm(self, x)  # (N, 1 or out, H', W')
        if self.weighting == "joint_tanh":
            size = (norm * length).clamp_min(smallest(norm))
        response, factor = products, self.gain(size, self._rho(norm))
        if not cosine:
            response, factor = self._g(products / norm), factor * size * self._strength(length)
        factor = factor.to(response.dtype)
        if self.bias is None:
            return (response * factor).to(products.dtype)
        bias = self.bias.to(response.dtype).view(-1, 1, 1)
        return torch.addcmul(bias, response, factor).to(products.dtype)

    def _rho(self, norm: Tensor) -> Tensor | float:
        rho = self.log_rho.exp().view(-1, 1, 1) if "log_rho" in self._parameters else self.initial_rho
        return rho * self._mean_norm(norm) if self.radius == "relative" else rho

    def _mean_norm(self, norm: Tensor) -> Tensor:
        nothing = 2 * smallest(norm)  # a mean up to this comes of zeros alone
        mean = norm.mean() if self.training else self.running_norm
        if self.training:
            with torch.no_grad():
                ema = EMA_DECAY * self.running_norm + (1 - EMA_DECAY) * mean
                self.running_norm.copy_(torch.where(self.running_norm > nothing, ema, mean))
        return torch.where(mean > nothing, mean, 1.0)

    def _filter_norm(self) -> Tensor:
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        length = torch.linalg.vector_norm(weight, dim=(1, 2, 3)).view(-1, 1, 1)
        return length.clamp_min(smallest(length))

    def _directions(self, length: Tensor) -> Tensor:
        """w / |w|; a filter of zeros stays 0, with gradient 0."""
        length = length.masked_fill(length <= smallest(length), math.inf)
        return (self.weight / length.unsqueeze(-1)).to(self.weight.dtype)

    def _filters(self, length: Tensor) -> Tensor:
        """w / |w| times the strength, without the detour where |w| cancels."""
        if self.weighting == "none":
            return self._directions(length)
        if self.weighting == "product_tanh":
            return (self.weight * (self._strength(length) / length).unsqueeze(-1)).to(self.weight.dtype)
        return self.weight

    def _strength(self, length: Tensor) -> Tensor | float:
        """What a filter's length multiplies the response by; joint_tanh has it inside the magnitude."""
        if self.weighting == "linear":
            return length
        return torch.tanh(length / self.weight_rho) if self.weighting == "product_tanh" else 1.0

    def _g(self, cosine: Tensor) -> Tensor:
        if self.angular == "square_cosine":
            return cosine * cosine.abs()
        limit = 1 - torch.finfo(cosine.dtype).eps  # at 1 the derivative of asin is infinite
        elevation = torch.asin(cosine.clamp(-limit, limit))  # pi/2 - theta, exactly 0 at a right angle
        if self.angular == "linear":
            return elevation * (2 / math.pi)
        return torch.tanh(elevation / (2 * self.sigmoid_k)) / math.tanh(math.pi / (4 * self.sigmoid_k))
