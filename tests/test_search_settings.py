"""The knobs of hydra/sweeper=search: what they may be, and what they are."""

import dataclasses

import pytest
from omegaconf import OmegaConf

from cnnlab.allowed import RequestError
from cnnlab.registry import CONF
from cnnlab.search.settings import Settings, settings_of

SETTINGS = {
    "metric": ("test/accuracy", "validation"),
    "direction": ("up", "maximize, minimize"),
    "sampler": ("tp", "'tpe'"),
    "n_trials": (0, ">= 1"),
    "stages": ([5, 1], "rising"),
    "seeds": ("x", "whole number"),
    "prune_from": (0, ">= 1"),
    "seed": (-1, ">= 0"),
}


@pytest.mark.parametrize("knob", SETTINGS)
def test_a_wrong_setting_is_refused_in_one_line(knob):
    value, allowed = SETTINGS[knob]
    with pytest.raises(RequestError) as refusal:
        settings_of({"_target_": "x", knob: value})
    assert str(refusal.value).startswith(f"hydra/sweeper=search hydra.sweeper.{knob} must be")
    assert allowed in str(refusal.value)


def test_the_word_in_conf_has_every_knob_at_its_default():
    node = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "sweeper" / "search.yaml"))
    assert node.pop("_target_") == "cnnlab.search.settings.Settings"
    assert node == dataclasses.asdict(Settings()) | {"stages": []}
