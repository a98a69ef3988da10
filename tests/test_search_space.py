"""What a search draws from: override lines become ranges and words, and drawn values lines again."""

import itertools
import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import stats

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.search.space import space_of
from cnnlab.search.values import edge, narrowed, position, rounded

COMPOSER = Composer()


def space(*lines: str):
    return space_of(COMPOSER, lines)


SPANS = {
    "optimizer.lr=tag(log, interval(1e-4, 1e-1))": FloatDistribution(1e-4, 1e-1, log=True),
    "loss.label_smoothing=interval(0, 0.5)": FloatDistribution(0.0, 0.5),
    "batch_size=int(interval(16, 64))": IntDistribution(16, 64),
    "batch_size=tag(log, int(interval(16, 64)))": IntDistribution(16, 64, log=True),
    "batch_size=range(32, 129, 32)": IntDistribution(32, 128, step=32),
    "batch_size=range(5, 0, -2)": IntDistribution(1, 5, step=2),
    "batch_size=shuffle(range(1, 4))": IntDistribution(1, 3),
    "regularizer.l2=range(0, 1, 0.1)": FloatDistribution(0.0, 0.9, step=0.1),
    "activation=relu,elu,relu": CategoricalDistribution(["relu", "elu"]),
    "model.filters=[8,8],[16]": CategoricalDistribution(["[8,8]", "[16]"]),
    "conv=glob(decoupled_?a*)": CategoricalDistribution(["decoupled_ball", "decoupled_tanh"]),
}


@pytest.mark.parametrize("line", SPANS)
def test_a_line_spans_what_hydra_says_it_does(line):
    (values,) = space(line).searched.values()
    assert values == SPANS[line]


# Line -> what the refusal must begin with, and what it must contain.
MISTAKES = {
    "epochs=2": ("hydra/sweeper=search: ", "several values"),
    "seed=1,2": ("seed: ", "hydra.sweeper.seeds"),
    "name=a,b": ("name=a,b: ", "what a run is"),
    "epochs=range(0,3)": ("epochs=0: ", ">= 1"),
    "optimizer.lr=interval(-1,2)": ("optimizer=adam optimizer.lr=-1.0: ", "> 0"),
    "optimizer.lr=interval(1e-3,inf)": ("optimizer.lr=interval(1e-3,inf): ", "two numbers"),
    "optimizer.lr=interval(1,1)": ("optimizer.lr=interval(1,1): ", "smaller first"),
    "optimizer.lr=tag(log,interval(0,1))": ("optimizer.lr=tag(log,interval(0,1)): ", "above 0"),
    "optimizer.lr=tag(lgo,interval(1,2))": ("optimizer.lr=tag(lgo,interval(1,2)): ", "must be log"),
    "activation=tag(log,choice(relu,elu))": ("activation=tag(log,choice(relu,elu)): ", "no scale"),
    "batch_size=tag(log,range(16,64,8))": ("batch_size=tag(log,range(16,64,8)): ", "no step"),
    "batch_size=range(5,5)": ("batch_size=range(5,5): ", "empty"),
    "conv=standard,nope": ("conv=nope: ", "no such conv"),
    "conv.rho=1,2": ("conv=standard conv.rho=1: ", "decoupled_tanh"),
    "conv=standard,fft conv.rho=1,2": ("conv=fft conv.rho=1: ", "decoupled_tanh"),
    "epochs=3 epochs=1,2": ("epochs=1,2: ", "given twice"),
    "seed=0,1": ("seed: ", "is not searched"),
    "dataset.folds=3 dataset.fold=0,1": ("dataset.fold: ", "is not searched"),
    "epochs=0 activation=relu,elu": ("epochs=0: ", ">= 1"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_space_that_cannot_be_is_refused_before_any_trial(line):
    start, content = MISTAKES[line]
    with pytest.raises(RequestError) as refusal:
        space(*line.split(" "))
    assert str(refusal.value).startswith(start) and content in str(refusal.value)
    assert "\n" not in str(refusal.value)


CONDITIONAL = ["conv=standard,decoupled_tanh,decoupled_ball", "conv.rho=1,2,3", "activation=relu,elu"]


def test_a_key_is_searched_for_the_words_that_have_it_alone():
    searched = space(*CONDITIONAL, "conv.radius=relative", "epochs=1")
    chosen = {"conv": "standard", "activation": "elu", "conv.rho": "2"}
    assert searched.lines(chosen) == ["epochs=1", "conv=standard", "activation=elu"]
    of_tanh = searched.lines(chosen | {"conv": "decoupled_tanh"})
    assert of_tanh == [
        "conv.radius=relative",
        "epochs=1",
        "conv=decoupled_tanh",
        "activation=elu",
        "conv.rho=2",
    ]


def test_the_size_is_the_number_of_different_lines():
    searched = space(*CONDITIONAL)
    every = itertools.product(*(values.choices for values in searched.searched.values()))
    different = {tuple(searched.lines(dict(zip(searched.searched, c, strict=True)))) for c in every}
    assert searched.size == len(different) == 14
    assert space("optimizer.lr=interval(1,2)", "activation=relu,elu").size == math.inf


def test_a_logarithmic_interval_is_drawn_evenly_over_its_decades():
    searched = space("optimizer.lr=tag(log, interval(1e-5, 1e-1))")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [searched.suggest(study.ask())["optimizer.lr"] for _ in range(300)]
    decades = [(math.log10(value) + 5) / 4 for value in drawn]
    assert stats.kstest(decades, "uniform").pvalue > 0.01
    assert stats.kstest([(value - 1e-5) / 0.1 for value in drawn], "uniform").pvalue < 1e-6


def test_drawn_values_are_short_and_stay_in_their_range():
    lr = FloatDistribution(0.00012345, 0.1, log=True)
    assert rounded(lr, 0.0031622776) == 0.003162
    assert rounded(lr, 0.00012345) == 0.00012345
    assert rounded(FloatDistribution(0.0, 0.99999), 0.99999) == 0.99999
    assert rounded(FloatDistribution(1000.0, 1000.1), 1000.0523) == 1000.0523
    assert rounded(FloatDistribution(-1.0, 1.0), 0.0) == 0.0


def test_narrowing_leaves_a_tenth_of_the_range_beside_the_best():
    lr = FloatDistribution(1e-4, 1e-1, log=True)
    low = narrowed(lr, [1e-3, 1e-2])  # a third and two thirds of the range, which is 3 decades
    assert math.isclose(low.low, 10**-3.3, rel_tol=1e-3) and math.isclose(low.high, 10**-1.7, rel_tol=1e-3)
    assert narrowed(lr, [1e-4, 1e-1]) == lr, "never wider than it was"
    assert narrowed(IntDistribution(0, 100, step=10), [50]) == IntDistribution(40, 60, step=10)
    assert narrowed(IntDistribution(0, 100, step=25), [50]) == IntDistribution(25, 75, step=25)
    assert narrowed(FloatDistribution(0, 0.9, step=0.1), [0.0]) == FloatDistribution(0, 0.1, step=0.1)
    assert narrowed(CategoricalDistribution(["a", "b", "c"]), ["c", "a", "c"]).choices == ("a", "c")


def test_a_narrowed_space_forgets_the_knobs_of_words_that_are_gone():
    best = [{"conv": "standard", "activation": "relu"}]
    kept = space(*CONDITIONAL).narrowed(best)
    assert [*kept.searched] == ["conv", "activation"] and kept.size == 1


def test_the_edge_is_told_on_the_scale_of_the_range():
    lr = FloatDistribution(1e-4, 1e-1, log=True)
    assert edge(lr, 1.2e-4) == "the lower end of 0.0001 to 0.1"
    assert edge(lr, 2e-3) is None, "near the end on a linear scale alone"
    assert edge(FloatDistribution(1e-4, 1e-1), 2e-3) == "the lower end of 0.0001 to 0.1"
    assert edge(CategoricalDistribution(["0.01", "0.1", "1"]), "1") == "the upper end of 0.01 to 1.0"
    assert edge(CategoricalDistribution(["0.01", "0.1", "1"]), "0.1") is None
    assert edge(CategoricalDistribution(["0", "0.1"]), "0.1") is None, "of two, one is always at an end"
    assert position(IntDistribution(3, 3), 3) == 0.5
