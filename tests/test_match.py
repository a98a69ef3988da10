"""match=params and match=macs: the variant's network costs what that of conv=standard costs."""

import re

import pytest
import torch

import cnnlab
from cnnlab import cost
from cnnlab.__main__ import command
from cnnlab.build import assemble
from cnnlab.compose import Composer
from cnnlab.network import build_net
from cnnlab.result import Result

SHAPE = (3, 16, 16)


def costs(*lines: str) -> tuple[float | None, int, int]:
    task = assemble(Composer().one(lines), SHAPE, classes=10)
    return task.hparams["width"], cost.parameters(task.net), cost.macs(task.net, SHAPE)


# cross_channel takes even numbers of channels only: the next width is 8 % of the cost away.
@pytest.mark.parametrize(
    ("variant", "within"),
    [("activation=crelu", 0.01), ("conv=depthwise_separable", 0.01), ("pooling=cross_channel", 0.07)],
)
@pytest.mark.parametrize("key", ["params", "macs"])
def test_the_budget_of_conv_standard_is_met(variant, within, key):
    index = 1 if key == "params" else 2
    budget, unmatched, matched = costs(), costs(variant), costs(variant, f"match={key}")
    assert abs(matched[index] / budget[index] - 1) < within
    assert abs(unmatched[index] / budget[index] - 1) > 0.1, "else there was nothing to match"


def test_what_costs_the_same_stays_as_wide_as_asked():
    assert costs("match=params", "conv=decoupled_tanh", "model.width=0.5")[0] == 0.5


def test_the_chosen_width_typed_by_hand_builds_the_same_network():
    width, params, macs = costs("activation=crelu", "match=params")
    assert costs("activation=crelu", f"model.width={width}")[1:] == (params, macs)


def test_grouped_convolutions_keep_their_groups():
    config = Composer().one(["conv=grouped", "match=params"])
    task = assemble(config, SHAPE, classes=10)
    unmatched = build_net(config, SHAPE, 10)
    groups = [[layer.groups for layer in cnnlab.conv.layers(net).values()] for net in (task.net, unmatched)]
    assert groups[0] == groups[1] and 4 in groups[0]


def test_a_budget_that_no_width_meets_is_said(caplog):
    assemble(Composer().one(["conv=locally_connected", "match=params", "model.filters=[4]"]), (1, 8, 8), 10)
    assert "match=params: the nearest is model.width=" in caplog.text


def test_what_is_set_beside_the_word_is_in_the_budget_too():
    assert costs("match=params", "conv=decoupled_tanh", "conv.bias=false")[0] == 1


def test_solving_draws_nothing():
    matched = assemble(Composer().one(["activation=crelu", "match=params"]), SHAPE, classes=10)
    width = matched.hparams["width"]
    typed = assemble(Composer().one(["activation=crelu", f"model.width={width}"]), SHAPE, classes=10)
    pairs = zip(matched.net.parameters(), typed.net.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_matched_run_records_its_width_and_loads_with_it(tmp_path, capsys):
    lines = ["activation=crelu", "match=params", "epochs=1", "logger=none", f"output_dir={tmp_path}"]
    assert command(lines) == 0
    assert re.search(r"matched width +0\.\d+: [\d,]+ of 67,562", capsys.readouterr().out)
    config = Composer().one(lines)
    result = Result.read(config.folder)
    assert result is not None and result.match is not None and result.match["width"] < 1
    assert result.match["cost"] == result.params and abs(result.params / result.match["budget"] - 1) < 0.01
    assert cost.parameters(cnnlab.load(config.folder).net) == result.params


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["match=params", "model=linear"], "match=params: model=linear has no width"),
        (["match=flops"], "match=flops: must be one of params, macs"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(lines, said, tmp_path, capsys):
    assert command([*lines, f"output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
