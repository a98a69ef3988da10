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
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from cnnlab.allowed import finite, one_of, truth, whole
from cnnlab.conv.blockwise import blockwise
from cnnlab.conv.geometry import PaddingMode, dense_macs
from cnnlab.conv.patch_norm import patch_norm, smallest
from cnnlab.conv.precision import wide

Angular = Literal["cosine", "linear", "sigmoid", "square_cosine"]
Weighting = Literal["none", "linear", "joint_tanh", "product_tanh"]
Radius = Literal["absolute", "relative"]

EMA_DECAY = 0.999  # of the running mean norm, as in the official code


class DecoupledConv2d(nn.Conv2d, ABC):
    """Constructor and forward pass of the decoupled convolutions; a subclass gives h as `gain`.

    angular: cosine cos(t); linear 1 - 2t/pi; sigmoid tanh((pi/2 - t) / 2k) / tanh(pi / 4k), k = `sigmoid_k`;
    square_cosine sign(cos t) cos(t)^2. Each falls from 1 at t = 0 over 0 at pi/2 to -1 at pi.
    weighting: none drops |w|; linear multiplies by |w|. Tanh alone has joint_tanh, alpha tanh(|x||w|/rho) g,
    and product_tanh, f tanh(|w|/weight_rho), where weight_rho is the initial rho unless given.
    learnable_rho: each filter trains its own rho, as exp(log_rho); the code has r^2 + 1e-4.
    radius: absolute is rho; relative is rho times the mean patch norm of the layer's input, in training that
    of the batch (through which its examples mix), else its running mean (1 until a batch was seen).
    projection_every: after every so many optimiser steps (0: never) `project()` is due, which gives filters
    the length `projection_norm`; it changes later gradients, which go with 1/|w|, and not the function.
    weighted_gradients: the gradient of w is multiplied by |w|, which cancels that 1/|w|.

    Raises: ValueError for a knob that is not at its default and that the formula lacks, and for projections
    or weighted gradients of a function that is weighted by |w|: they would change it.
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
        projection_every: int = 0,
        projection_norm: float = 1.0,
        weighted_gradients: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.angular = one_of("angular", angular, get_args(Angular))
        self.sigmoid_k = finite("sigmoid_k", sigmoid_k, above=0)
        self.alpha = finite("alpha", alpha, above=0)
        self.beta = finite("beta", beta, at_least=0)
        self.initial_rho = finite("rho", rho, above=0)
        self.radius = one_of("radius", radius, get_args(Radius))
        self.weighting = one_of("weighting", weighting, self.weightings)
        self.weight_rho = rho if weight_rho is None else finite("weight_rho", weight_rho, above=0)
        self.projection_every = whole("projection_every", projection_every, at_least=0)
        self.projection_norm = finite("projection_norm", projection_norm, above=0)
        self.weighted_gradients = truth("weighted_gradients", weighted_gradients)
        truth("learnable_rho", learnable_rho)
        unused: dict[str, Any] = {"beta": beta, "rho": rho, "learnable_rho": learnable_rho, "radius": radius}
        unused = {knob: value for knob, value in unused.items() if knob not in self.knobs}
        if angular != "sigmoid":
            unused["sigmoid_k"] = sigmoid_k
        if weighting != "product_tanh":
            unused["weight_rho"] = weight_rho
        formula = f"{type(self).__name__} with angular={angular}, weighting={weighting}"
        self._require_defaults(f"{formula} has no use for it", **unused)
        if not projection_every:
            self._require_defaults("projection_every=0 never projects", projection_norm=projection_norm)
        if weighting != "none":
            self._require_defaults(
                f"weighting={weighting} makes |w| part of the function",
                projection_every=projection_every,
                weighted_gradients=weighted_gradients,
            )
        if learnable_rho:
            self.log_rho = nn.Parameter(torch.full((out_channels,), math.log(rho)))
        if radius == "relative":
            self.register_buffer("running_norm", torch.zeros(()))  # 0: no batch seen

    def _require_defaults(self, why: str, **values: Any) -> None:
        for knob, value in values.items():
            default = inspect.signature(type(self)).parameters[knob].default
            if value != default:
                raise ValueError(f"{knob} must be left at {default}, got {value}: {why}")

    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw the weights anew by a rule of cnnlab.initializer, in place of nn.Conv2d's."""
        rule(self.weight, self.bias)

    @abstractmethod
    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        """h(norm) / norm for a positive norm."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        length = self._filter_norm()  # (out, 1, 1, 1)
        cosine = self.angular == "cosine"  # then |x| g(theta) is a convolution: no angle is needed
        products = self._conv_forward(x, self._filters(length) if cosine else self._directions(length), None)
        norm = patch_norm(self, x)  # (N, groups, H', W')
        bias = None if self.bias is None else self.bias.to(norm.dtype)
        return blockwise(self._response, [products, norm], [self._rho(norm), length, bias])

    def _response(
        self, products: Tensor, norm: Tensor, rho: Tensor, length: Tensor, bias: Tensor | None
    ) -> Tensor:
        """f from the inner products of patches and filters, (N, out, H', W')."""
        per_filter = self.groups, -1, 1, 1
        response = products.to(norm.dtype).unflatten(1, (self.groups, -1))  # (N, groups, out/groups, H', W')
        norm, length = norm.unsqueeze(2), length.view(per_filter)
        size, joint = norm, self.weighting == "joint_tanh"
        if rho.dim():
            rho = rho.view(per_filter)
        if joint or rho.dim():
            size = size + torch.zeros_like(response)  # a map per filter, laid out in memory as the response
        if joint:
            size = (size * length).clamp_min(smallest(norm))
        factor = self.gain(size, rho)
        if self.angular != "cosine":
            response, factor = self._g(response * norm.reciprocal()), factor * size
            if self.weighting != "none":
                response = response * self._strength(length)
        if bias is None:
            response = response * factor
        else:
            response = torch.addcmul(bias.view(per_filter), response, factor)
        return response.flatten(1, 2).to(products.dtype)

    def _rho(self, norm: Tensor) -> Tensor:
        trained = "log_rho" in self._parameters
        rho = self.log_rho.exp() if trained else norm.new_full((), self.initial_rho)  # (out,) or ()
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
        length = torch.linalg.vector_norm(wide(self.weight), dim=(1, 2, 3), keepdim=True)
        return length.clamp_min(smallest(length))

    def _directions(self, length: Tensor) -> Tensor:
        """w / |w|; a filter of zeros stays 0, with gradient 0."""
        directions = self.weight / length.masked_fill(length <= smallest(length), math.inf)
        if self.weighted_gradients:
            value = directions.detach()
            directions = value + (directions - value) * length.detach()
        return directions.to(self.weight.dtype)

    @torch.no_grad()
    def project(self) -> None:
        """Give every filter the length `projection_norm`; one of zeros stays as it is."""
        self.weight.copy_(self.projection_norm * self._directions(self._filter_norm()))

    def _filters(self, length: Tensor) -> Tensor:
        """w / |w| times the strength, without the detour where |w| cancels."""
        if self.weighting == "none":
            return self._directions(length)
        if self.weighting == "product_tanh":
            return (self.weight * (self._strength(length) / length)).to(self.weight.dtype)
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
        top = math.tanh(math.pi / (4 * self.sigmoid_k))
        return torch.sigmoid(elevation / self.sigmoid_k) * (2 / top) - 1 / top  # tanh, in half its time
