"""Override lines -> configurations: equal to Hydra's own composition, judged, fingerprinted."""

import math
import random
import time

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cnnlab import available
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import default_words, shown
from cnnlab.registry import CONF

LINES = [
    [],
    ["conv=decoupled_tanh", "ortho_weight=0.1"],
    ["optimizer=sgd", "optimizer.lr=0.5", "conv.rho=2", "conv=decoupled_ball", "seed=3"],
    ["experiment=singla", "epochs=2"],
    ["experiment=singla", "model=convnet", "optimizer.lr=1e-2"],
    ["model.filters=[4,8]", "model.dense=[16]", "name='a b'", "optimizer.betas=[0.8,0.9]"],
    ["dataset=hub", "dataset.path=/some/where", "optimizer.weight_decay=${optimizer.lr}"],
    ["trainer.max_steps=3", "trainer.gradient_clip_val=1.5", "ortho_weight=1e-1"],
]


@pytest.mark.parametrize("lines", LINES, ids=" ".join)
def test_a_configuration_is_what_hydra_composes(lines):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydras = compose("config", Composer().for_hydra(lines))
    assert Composer().one(lines).tree == OmegaConf.to_container(hydras, resolve=True)


def test_a_sweep_is_every_combination_in_hydras_order():
    configs = Composer().sweep(["conv=glob(decoupled_*)", "ortho_weight=0,0.1", "seed=range(2)"])
    words = [word for word in available("conv") if word.startswith("decoupled_")]
    assert [(c.choices["conv"], c.tree["ortho_weight"], c.tree["seed"]) for c in configs] == [
        (word, weight, seed) for word in words for weight in (0, 0.1) for seed in (0, 1)
    ]


def test_a_thousand_jobs_are_judged_in_seconds():
    began = time.process_time()
    configs = Composer().sweep(["conv=standard,orthogonal", "seed=range(500)"])
    assert len({config.id for config in configs}) == 1000
    assert time.process_time() - began < 20


def config_id(*lines: str) -> str:
    return Composer().one(lines).id


@pytest.mark.parametrize(
    "line",
    [
        *("name=x", "output_dir=/elsewhere", "resume=false", "trusted=[theirs]", "logger=csv", "threads=1"),
        *(
            "logger.project=other",
            "trainer.enable_progress_bar=false",
            "ortho_weight=0.0",
            "optimizer.lr=1e-3",
        ),
    ],
)
def test_where_and_how_a_run_is_made_does_not_change_its_id(line):
    group = ["logger=wandb"] if line.startswith("logger.") else []
    assert config_id(*group, line) == config_id()


@pytest.mark.parametrize(
    "line",
    ["seed=1", "epochs=21", "conv=orthogonal", "ortho_weight=1e-9", "trainer.precision=32", "conv.rho=2"],
)
def test_what_a_run_is_changes_its_id(line):
    group = ["conv=decoupled_tanh"] if line.startswith("conv.") else []
    assert config_id(*group, line) != config_id(*group)


def test_an_experiment_is_the_same_run_as_its_lines_written_out():
    written_out = (
        "model=singla preprocessing=unit_range dataset=hub optimizer.lr=3e-4 epochs=8 batch_size=128"
    )
    assert config_id("experiment=singla") == config_id(*written_out.split())


def test_what_an_experiment_sets_differs_from_the_defaults():
    config = Composer().one(["experiment=singla", "dataset.path=x"])
    changed = {"optimizer.lr": 3e-4, "epochs": 8, "batch_size": 128, "dataset.path": "x"}
    assert config.values == changed
    written_out = [f"{key}={value}" for key, value in changed.items()]
    words = ["model=singla", "preprocessing=unit_range", "dataset=hub"]
    assert Composer().one([*words, *written_out]).folder == config.folder


def test_the_id_is_known():
    # A change of this number makes everybody's finished runs unknown: only with a reason.
    tree = {"seed": 0, "conv": {"_target_": "cnnlab.conv.standard.StandardConv2d"}, "name": "x"}
    from cnnlab.config import Config

    assert Config(tree).id == "842e4ef63f"


def test_values_and_summary_say_what_differs_from_the_defaults():
    config = Composer().one(
        ["seed=2", "ortho_weight=0.1", "conv=decoupled_ball", "conv.rho=1.0", "epochs=20"]
    )
    assert config.values == {"seed": 2, "ortho_weight": 0.1}
    assert config.summary == "conv=decoupled_ball,seed=2,ortho_weight=0.1"
    assert config.folder.name == f"{config.summary}-{config.id}"
    assert Composer().one([]).summary == "defaults"


def test_choices_name_the_word_of_every_group():
    assert Composer().one([]).choices == default_words()
    assert set(default_words()) == {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {
        *("experiment", "hydra")
    }


def test_ortho_weight_inf_turns_standard_into_orthogonal_and_nothing_else():
    config = Composer().one(["ortho_weight=inf"])
    assert config.choices["conv"] == "orthogonal" and config.tree["ortho_weight"] == math.inf
    assert config.tree["conv"]["_target_"] == "cnnlab.conv.orthogonal.OrthogonalConv2d"
    assert config.tree["regularizer"]["orthogonality"] == 0
    assert Composer().one(["ortho_weight=inf", "conv=standard"]).id == config.id
    for word in set(available("conv")) - {"standard"}:
        with pytest.raises(RequestError, match="ortho_weight=inf"):
            Composer().one(["ortho_weight=inf", f"conv={word}"])


SIGNS = "10_.e-+anif/:*%@?|\\'\" #é=,${}[]()~!"
NUMBERS = ["1", "-1", "+1", "1_0", "1.", ".5", "1e-3", "1E3", "007", "0x1", "inf", "-inf", "+nan", "NaN"]
TEXTS = [*NUMBERS, "", " ", " a", "a b", "true", "False", "null", "a#b", "it's", "a\\", "a\\'", "glob(*)"]
PLAIN = ["same", "32-true", "bf16-mixed", "/tmp/x_1.y", "a:b", "../data", "1.0.0"]
NESTED = [[], {}, ["1", ["true", None]], {"a": "null", "b": [True, {"c": "x y"}]}, 1e-5, 1e16, math.inf, -3]


def test_a_value_is_shown_as_hydra_reads_it_back():
    rng = random.Random(0)
    texts = [*TEXTS, *PLAIN, *("".join(rng.choices(SIGNS, k=rng.randint(1, 5))) for _ in range(2000))]
    parser = OverridesParser.create()
    for value in [*texts, *NESTED, *([text, {"key": text}] for text in texts[:100])]:
        read = parser.parse_override(f"key={shown(value)}").value()
        assert read == value and type(read) is type(value), shown(value)
    assert math.isnan(parser.parse_override(f"key={shown(math.nan)}").value())
    assert [shown(text) for text in PLAIN] == PLAIN, "no quotes where none are needed"
    assert "\n" not in shown("two\nlines"), "what is shown is one line"


def test_arguments_that_cnnlab_supplies_cannot_be_set():
    for line in ("conv.in_channels=3", "schedule.steps=3", "model.classes=3"):
        with pytest.raises(RequestError, match="is not free"):
            Composer().one([line])


def test_a_target_is_judged_wherever_it_hides():
    for line in (
        "model.conv={_target_:os.system}",
        "conv._target_=cnnlab_evil.X",
        "conv._target_=torch.load",
    ):
        with pytest.raises(RequestError, match=r"_target_|no such key"):
            Composer().one([line])
