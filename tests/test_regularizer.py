import itertools
import logging
import math

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.compose import Composer
from cnnlab.model.linear import LinearClassifier
from cnnlab.model.singla import Singla
from cnnlab.regularizer import Penalties, orthogonality_floor, orthogonality_loss, orthonormality_loss
from cnnlab.train import train


def filters(out=6, inputs=3, size=3, bias=True, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, inputs, size, size, dtype=dtype, generator=generator)
    return weight, torch.randn(out, dtype=dtype, generator=generator) if bias else None


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def slow_orthogonality(weight, bias=None, groups=1) -> float:
    """Every ordered pair by itself, each filter written out over all input channels."""
    out, inputs = weight.shape[:2]
    vectors = []
    for i, kernel in enumerate(weight):
        full = torch.zeros(inputs * groups, *kernel.shape[1:], dtype=weight.dtype)
        first = i // (out // groups) * inputs
        full[first : first + inputs] = kernel
        vectors.append([*full.flatten().tolist(), *([] if bias is None else [bias[i].item()])])
    total = 0.0
    for a, b in itertools.permutations(vectors, 2):
        if any(a) and any(b):
            total += (dot(a, b) / math.hypot(*a) / math.hypot(*b)) ** 2
    return total


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_orthogonality_loss_equals_the_slow_reference(bias, groups):
    weight, b = filters(bias=bias)
    assert orthogonality_loss(weight, b, groups).item() == pytest.approx(
        slow_orthogonality(weight, b, groups)
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_orthogonality_gradient_agrees_with_finite_differences(groups):
    weight, bias = filters(out=4, inputs=2, size=2)
    inputs = weight.requires_grad_(), bias.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, b: orthogonality_loss(w, b, groups), inputs)


def test_a_zero_filter_counts_nothing_and_gets_no_gradient():
    weight, bias = filters()
    weight[2], bias[2] = 0.0, 0.0
    rest = [0, 1, 3, 4, 5]
    weight.requires_grad_()
    loss = orthogonality_loss(weight, bias)
    loss.backward()
    assert loss.item() == pytest.approx(slow_orthogonality(weight.detach()[rest], bias[rest]))
    assert weight.grad.isfinite().all()
    assert (weight.grad[2] == 0).all()


def test_all_filters_zero_give_zero_and_finite_gradients():
    weight = torch.zeros(4, 2, 3, 3, requires_grad=True)
    loss = orthogonality_loss(weight, torch.zeros(4))
    loss.backward()
    assert loss == 0
    assert (weight.grad == 0).all()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_orthogonality_loss_ignores_the_filters_norms(scale):
    weight, bias = filters(dtype=torch.float32)
    factors = torch.tensor([1.0, scale, 1.0, scale, 1.0, 1.0])
    torch.testing.assert_close(
        orthogonality_loss(weight * factors[:, None, None, None], bias * factors),
        orthogonality_loss(weight, bias),
    )


def test_orthogonality_loss_is_exact_near_zero():
    # Cosine 1e-6: the loss 2e-12 would be lost in float32 beside the diagonal's 1.
    weight = torch.tensor([[1.0, 0.0], [1e-6, 1.0]]).reshape(2, 2, 1, 1)
    assert orthogonality_loss(weight).item() == pytest.approx(2e-12, rel=1e-5)


def test_penalties_are_computed_in_float32_under_autocast():
    weight, bias = filters(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = orthogonality_loss(weight, bias), orthonormality_loss(weight.flatten(1))
    assert torch.equal(inside[0], orthogonality_loss(weight, bias))
    assert torch.equal(inside[1], orthonormality_loss(weight.flatten(1)))
    assert orthogonality_loss(weight.bfloat16(), bias.bfloat16()).dtype == torch.float32
    assert orthogonality_loss(weight.double(), bias.double()).dtype == torch.float64


def test_orthonormality_loss_equals_the_slow_reference():
    matrix = filters(out=5, inputs=1, size=2)[0].flatten(1)  # (5, 4)
    total = 0.0
    for i, j in itertools.product(range(4), repeat=2):
        total += (float(i == j) - dot(matrix[:, i].tolist(), matrix[:, j].tolist())) ** 2
    assert orthonormality_loss(matrix).item() == pytest.approx(total)
    assert torch.autograd.gradcheck(orthonormality_loss, matrix.requires_grad_())


def test_orthonormality_loss_of_orthonormal_columns_is_zero():
    columns = torch.linalg.qr(filters(out=7, inputs=4, size=1)[0].flatten(1)).Q
    assert orthonormality_loss(columns).item() == pytest.approx(0.0, abs=1e-25)
    assert orthonormality_loss(columns.T).item() == pytest.approx(3.0)  # M M^T has rank 4 of 7


def test_no_filters_fall_below_the_floor_and_a_tight_frame_attains_it():
    weight, _ = filters(out=7, inputs=2, size=1, bias=False)
    assert orthogonality_loss(weight).item() > orthogonality_floor(7, 2) == 49 / 2 - 7
    angles = torch.arange(7, dtype=torch.float64) * math.pi / 7
    frame = torch.stack((angles.cos(), angles.sin()), dim=1).reshape(7, 2, 1, 1)
    assert orthogonality_loss(frame).item() == pytest.approx(49 / 2 - 7)
    assert orthogonality_floor(4, 4) == 0


def test_orthogonality_of_singla_starts_where_theory_says():
    # sum over layers of n (n - 1) / (m + 1) = 37.42, for filters of random direction
    values = []
    for seed in range(8):
        torch.manual_seed(seed)
        values.append(Penalties().orthogonality_of(Singla((3, 32, 32), 10)).item())
    assert sum(values) / len(values) == pytest.approx(37.48, abs=1.0)


@pytest.mark.parametrize(("channels", "floor"), [(3, 0.0), (1, 32**2 / 26 - 32)])
def test_descent_on_the_orthogonality_loss_reaches_the_floor(channels, floor):
    # 5x5 kernels on one channel have, with the bias, 26 dimensions for 32 filters.
    torch.manual_seed(0)
    net, penalties = Singla((channels, 10, 10), 2), Penalties(orthogonality=0.1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        penalties(net).backward()
        optimizer.step()
    assert penalties.orthogonality_floor_of(net) == pytest.approx(floor)
    assert penalties.orthogonality_of(net).item() == pytest.approx(floor, abs=0.05)


def net_of_known_parts() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1, bias=False), nn.Linear(3, 2)
    ).double()


def test_the_penalty_is_the_weighted_sum_of_its_terms():
    net = net_of_known_parts()
    grouped, _, pointwise, dense = net
    orthogonality = slow_orthogonality(grouped.weight.detach(), grouped.bias.detach(), 2)
    orthogonality += slow_orthogonality(pointwise.weight.detach())
    l2 = sum(0.5 * layer.weight.square().sum().item() for layer in (grouped, pointwise, dense))
    penalties = Penalties(orthogonality=0.3, l2=0.7)
    assert penalties(net).item() == pytest.approx(0.3 * orthogonality + 0.7 * l2)
    assert {name: term.item() for name, term in penalties.terms(net).items()} == pytest.approx(
        {"orthogonality": orthogonality, "l2": l2}
    )
    assert Penalties().orthogonality_of(net).item() == pytest.approx(orthogonality)
    assert not penalties.orthogonality_of(net).requires_grad


def test_l2_pulls_weights_and_spares_biases_and_norms():
    net = net_of_known_parts()
    Penalties(l2=0.7)(net).backward()
    for name, parameter in net.named_parameters():
        if parameter.dim() >= 2:
            torch.testing.assert_close(parameter.grad, 0.7 * parameter.detach(), msg=name)
        else:
            assert parameter.grad is None


def test_terms_without_weight_are_not_computed():
    net = net_of_known_parts()
    assert Penalties()(net) == 0.0
    assert Penalties().terms(net) == {}
    assert list(Penalties(l2=1).terms(net)) == ["l2"]


def test_only_a_trainable_weight_of_its_own_counts():
    class Derived(nn.Conv2d):
        def __init__(self, *args):
            super().__init__(*args)
            self.raw = nn.Parameter(self._parameters.pop("weight"))

        @property
        def weight(self):
            return 2 * self.raw

    frozen = nn.Conv2d(2, 3, 3).requires_grad_(False)
    counted = nn.Conv2d(2, 3, 3)
    net = nn.Sequential(Derived(2, 3, 3), frozen, counted)
    expected = orthogonality_loss(counted.weight, counted.bias)
    assert torch.equal(Penalties().orthogonality_of(net), expected)


def test_a_net_without_such_convolutions_gives_zero_and_one_warning(caplog):
    net, penalties = LinearClassifier((1, 4, 4), 2), Penalties(orthogonality=0.1)
    with caplog.at_level(logging.WARNING, "cnnlab"):
        assert [float(penalties(net)) for _ in range(3)] == [0.0] * 3
        assert Penalties().orthogonality_of(net) == 0
    assert len(caplog.records) == 1
    assert "no convolution has a trainable weight" in caplog.text


def test_l1_and_l2_are_the_elastic_net_of_hand_computed_value_and_gradient():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[3.0, -0.5]])
    layer.bias.data = torch.tensor([2.0])
    penalty = Penalties(l1=0.5, l2=0.2)(layer)  # .5 * 3.5 + .2 * (9 + .25) / 2
    penalty.backward()
    assert penalty.item() == pytest.approx(1.75 + 0.925)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.5 + 0.6, -0.5 - 0.1]]))
    assert layer.bias.grad is None


def test_biases_and_norms_are_penalized_on_request():
    net = net_of_known_parts()
    every = sum(parameter.abs().sum().item() for parameter in net.parameters())
    assert Penalties(l1=1.0, biases=True)(net).item() == pytest.approx(every)
    assert Penalties(l1=1.0)(net).item() < every - 3  # the norm's weights alone are 4


def test_max_norm_shortens_long_units_alone_and_keeps_their_direction():
    net = nn.Sequential(nn.Conv2d(1, 3, (1, 2)), nn.BatchNorm2d(3), nn.Linear(2, 1))
    net[0].weight.data = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]]).view(3, 1, 1, 2)
    net[2].weight.data = torch.tensor([[-5.0, 12.0]])
    net[1].weight.data.fill_(9.0), net[0].bias.data.fill_(9.0)
    Penalties(max_norm=2.0).project(net)
    rows = net[0].weight.flatten(1).tolist()
    assert rows[0] == pytest.approx([1.2, 1.6])
    assert rows[1:] == torch.tensor([[0.6, 0.8], [0.0, 0.0]]).tolist(), "bit for bit"
    assert net[2].weight[0].tolist() == pytest.approx([-10 / 13, 24 / 13])
    assert net[1].weight.tolist() == net[0].bias.tolist() == [9.0] * 3
    Penalties(max_norm=2.0, biases=True).project(net)
    assert net[1].weight.tolist() == net[0].bias.tolist() == [2.0] * 3


@pytest.mark.parametrize(
    "variant", ["standard", "grouped", "flipped", "locally_connected", "tiled", "flattened"]
)
def test_max_norm_holds_for_every_unit_of_a_variant(variant):
    torch.manual_seed(0)
    conv = cnnlab.create("conv", variant, 4, 6, 3)
    conv(torch.zeros(1, 4, 5, 5))
    parts = getattr(conv, "factors", [conv])
    for part in parts:
        part.weight.data.mul_(100) if variant != "flipped" else part.kernel.data.mul_(100)
    Penalties(max_norm=0.5).project(nn.Sequential(conv))
    for part in parts:
        weight = part.weight.detach()
        if variant == "locally_connected":  # (H', W', kh, kw, in, out)
            weight = weight.movedim(-1, 2).flatten(0, 1)
        units = weight.reshape(-1, weight[..., :, :, :].shape[-3:].numel())
        assert units.norm(dim=1).tolist() == pytest.approx([0.5] * len(units))


def test_max_norm_leaves_what_is_orthogonal_by_construction():
    conv = cnnlab.create("conv", "skew_orthogonal", 4, 4, 3, padding=1)
    before = [parameter.clone() for parameter in conv.parameters()]
    Penalties(max_norm=1e-3).project(conv)
    assert all(torch.equal(a, b) for a, b in zip(before, conv.parameters(), strict=True))


def test_max_norm_holds_after_every_step_of_a_run(tmp_path):
    lines = ["model=mlp", "model.dense=[8]", "optimizer=sgd", "optimizer.lr=100", "epochs=1", "logger=none"]
    config = Composer().one([*lines, "regularizer.max_norm=0.5", "threads=1", f"output_dir={tmp_path}"])
    result = train(config)
    assert result.status == "done", "a learning rate that would explode does not"
    state = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    norms = torch.cat([weight.norm(dim=1) for weight in state.values() if weight.dim() == 2])
    assert norms.max() <= 0.5 * (1 + 1e-6) and len(norms) == 18


@pytest.mark.parametrize("name", ["orthogonality", "l2", "l1"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "much", None, True])
def test_a_wrong_weight_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        Penalties(**{name: value})


def test_the_floor_of_a_net_counts_the_bias_row():
    net = nn.Sequential(nn.Conv2d(1, 12, 3), nn.Conv2d(12, 12, 1), nn.Conv2d(4, 12, 1, groups=2, bias=False))
    expected = (144 / 10 - 12) + 0 + (144 / 4 - 12)
    assert Penalties().orthogonality_floor_of(net) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "values"),
    [("max_norm", [0, -1, math.inf, "c"]), ("dropconnect", [-0.1, 1, "p", None]), ("biases", [1, "yes"])],
)
def test_a_wrong_knob_is_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
            Penalties(**{name: value})
