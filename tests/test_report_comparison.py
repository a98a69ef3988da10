"""Who is compared with whom, and what is said of it."""

import math
from statistics import fmean, stdev

import pytest
from scipy import stats

from cnnlab.allowed import RequestError
from cnnlab.report.find import runs_below
from cnnlab.report.findings import report
from cnnlab.report.gallery import median
from cnnlab.report.grids import costs, selection
from tests.report_runs import run

STANDARD = [0.90, 0.92, 0.91, 0.93]
BALL = [0.95, 0.965, 0.96, 0.975]
FFT = [0.91, 0.90, 0.93, 0.91]


@pytest.fixture
def made(tmp_path):
    """The report of the runs in the test's folder."""

    def made(metric="val/accuracy", **wishes):
        return report(runs_below([tmp_path]), metric, wishes, "title")

    return made


def sweep(folder, scores, **fields):
    for seed, score in enumerate(scores):
        run(folder, score, seed=seed, **fields)


def rows(made):
    (findings,) = made.findings
    return {", ".join(row.label): row for row in findings.whole.rows}


def test_means_deviations_and_paired_differences_are_those_of_scipy(tmp_path, made):
    for conv, scores in (("standard", STANDARD), ("decoupled_ball", BALL), ("fft", FFT)):
        sweep(tmp_path, scores, conv=conv)
    of = rows(made())
    assert [*of] == ["decoupled_ball", "standard", "fft"]
    assert (of["fft"].score.mean, of["fft"].score.deviation) == pytest.approx((fmean(FFT), stdev(FFT)))
    assert of["standard"].difference is None
    ball = stats.ttest_rel(BALL, STANDARD)
    fft = stats.ttest_rel(FFT, STANDARD)
    # Two comparisons: the surer one at 5 % / 2, then the other one at 5 %.
    assert of["decoupled_ball"].difference.interval == pytest.approx(tuple(ball.confidence_interval(0.975)))
    assert of["fft"].difference.interval == pytest.approx(tuple(fft.confidence_interval(0.95)))
    assert [row.verdict for row in of.values()] == ["better", "baseline", "not enough seeds to tell"]


def test_seeds_pair_by_their_number_and_others_stay_out_of_the_difference(tmp_path, made):
    sweep(tmp_path, STANDARD)
    for seed, score in ((3, 0.95), (1, 0.93), (9, 0.10)):
        run(tmp_path, score, seed=seed, conv="fft")
    row = rows(made())["fft"]
    assert row.score.n == 3
    assert row.difference.n == 2
    assert row.difference.mean == pytest.approx((0.95 - 0.93 + 0.93 - 0.92) / 2)


def test_one_seed_tells_nothing(tmp_path, made):
    run(tmp_path, 0.5)
    run(tmp_path, 0.9, conv="fft")
    row = rows(made())["fft"]
    assert row.verdict == "not enough seeds to tell"
    assert row.difference.interval is None


def test_without_a_common_seed_there_are_no_pairs(tmp_path, made):
    run(tmp_path, 0.5)
    run(tmp_path, 0.9, conv="fft", seed=1)
    assert rows(made())["fft"].verdict == "no pairs"


def test_equal_differences_of_few_seeds_are_no_proof(tmp_path, made):
    """Accuracies are counts: two seeds can well differ by the same number of images."""
    sweep(tmp_path, [0.5, 0.6])
    sweep(tmp_path, [0.5 + 1 / 144, 0.6 + 1 / 144], conv="fft")
    assert rows(made())["fft"].verdict == "not enough seeds to tell"


def test_less_loss_is_better(tmp_path, made):
    for conv, scores in (("standard", STANDARD), ("fft", BALL)):
        for seed, score in enumerate(scores):
            run(tmp_path, 0.5, seed=seed, conv=conv, metrics={"val/loss": 1 - score})
    of = rows(made("val/loss"))
    assert [*of] == ["fft", "standard"]
    assert of["fft"].verdict == "better"


def test_values_that_are_not_finite_are_left_out(tmp_path, made):
    sweep(tmp_path, STANDARD)
    run(tmp_path, math.nan, seed=7)
    run(tmp_path, math.inf, seed=8)
    assert rows(made())["defaults"].score.n == 4


def test_by_a_key_like_is_compared_with_like(tmp_path, made):
    """ortho_weight costs 0.1 under both convolutions, of which only one has been run without it, twice."""
    for conv, base in (("standard", 0.9), ("fft", 0.7)):
        for seed in range(3):
            run(tmp_path, base + 0.01 * seed, seed=seed, conv=conv)
            run(tmp_path, base - 0.1 + 0.011 * seed, seed=seed, conv=conv, values={"ortho_weight": 0.1})
    run(tmp_path, 0.1, conv="gabor", values={"ortho_weight": 0.1})
    (findings,) = made().findings
    by_conv, by_weight = findings.by
    assert [row.label for row in by_weight.rows] == [("default",), ("0.1",)]
    assert by_weight.rows[1].score.n == 3
    # Per seed the mean over both convolutions: -0.1, -0.099, -0.098.
    assert by_weight.rows[1].difference.mean == pytest.approx(-0.099)
    assert by_weight.rows[1].difference.deviation == pytest.approx(0.001)
    assert [row.label for row in by_conv.rows] == [("standard",), ("fft",), ("gabor",)]
    assert by_conv.rows[2].difference.mean == pytest.approx(0.1 - 0.8)


def test_a_groups_knobs_belong_to_its_words(tmp_path, made):
    for seed in range(2):
        run(tmp_path, 0.5, seed=seed)
        for rho, score in ((1.0, 0.6), (2.0, 0.8)):
            run(tmp_path, score + seed / 10, seed=seed, conv="decoupled_ball", values={"conv.rho": rho})
    by_conv, by_rho = made().findings[0].by
    assert by_conv.rows[0].difference.mean == pytest.approx(0.7 + 0.05 - 0.5)
    assert [row.label for row in by_rho.rows] == [("2",), ("1",)]  # standard has none


def test_different_data_are_never_compared(tmp_path, made):
    run(tmp_path, 0.5)
    run(tmp_path, 0.9, dataset="hub", values={"dataset.path": "a"})
    run(tmp_path, 0.8, dataset="hub", values={"dataset.path": "b"})
    assert [len(findings.section.variants) for findings in made().findings] == [1, 1, 1]
    assert {findings.section.name for findings in made().findings} == {
        "dataset=digits",
        "dataset=hub, dataset.path=a",
        "dataset=hub, dataset.path=b",
    }


def test_the_same_run_again_counts_once_the_last_that_is_done(tmp_path, made):
    run(tmp_path, 0.5, started="2026-01-02")
    run(tmp_path, 0.6, started="2026-01-03")
    run(tmp_path, None, started="2026-01-04")
    of = made()
    assert (rows(of)["defaults"].score.mean, rows(of)["defaults"].score.n) == (0.6, 1)
    assert of.facts["runs"] == "1 done, 0 not; 2 left out, since the same was run again"


def test_one_and_one_point_nought_are_one_value(tmp_path, made):
    run(tmp_path, 0.5, values={"conv.rho": 2})
    run(tmp_path, 0.6, seed=1, values={"conv.rho": 2.0})
    assert rows(made())["defaults"].score.n == 2


def test_words_and_keys_that_nobody_knows_are_reported_like_others(tmp_path, made):
    sweep(tmp_path, STANDARD, conv="of_the_future")
    sweep(tmp_path, FFT, conv="of_the_past", values={"conv.lost": [1, None]})
    of = rows(made())
    assert [*of] == ["of_the_future", "of_the_past, conv.lost=[1,null]"]


def test_a_default_is_called_by_the_value_that_an_override_tells(tmp_path, made):
    run(tmp_path, 0.5, overrides=["ortho_weight=0"])
    run(tmp_path, 0.6, values={"ortho_weight": 0.1})
    assert [*rows(made())] == ["ortho_weight=0.1", "ortho_weight=0"]


def test_defaults_that_changed_between_versions_do_not_hide_a_variant(tmp_path, made):
    run(tmp_path, 0.5, overrides=["epochs=10"])
    run(tmp_path, 0.6, values={"epochs": 10})
    assert sorted(rows(made())) == ["epochs=10", "epochs=10, (2)"]


def test_the_baseline_is_the_default_or_what_is_asked_for(tmp_path, made):
    for conv in ("fft", "standard", "gabor"):
        run(tmp_path, 0.5, conv=conv)
        run(tmp_path, 0.5, conv=conv, values={"ortho_weight": 0.1})

    def baseline(**wishes):
        return made(**wishes).findings[0].whole.baseline.label

    assert baseline() == ("standard",)
    assert baseline(conv="gabor") == ("gabor",)
    assert baseline(ortho_weight="0.10", conv="fft") == ("fft", "ortho_weight=0.1")
    assert made(conv="gabor").findings[0].by[0].baseline.label == ("gabor",)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (
            {"conv": "fff"},
            "conv=fff: no run that is done has it; conv is fft or standard, did you mean 'fft'?",
        ),
        ({"covn": "fft"}, "covn=fft: no run that is done has it; no run tells covn, did you mean 'conv'?"),
        ({"conv": "fft", "epochs": "2"}, "conv=fft epochs=2: no run that is done has all of it"),
    ],
)
def test_a_baseline_that_nobody_ran_is_refused(tmp_path, made, wishes, message):
    run(tmp_path, 0.5, values={"epochs": 2})
    run(tmp_path, 0.5, conv="fft")
    with pytest.raises(RequestError) as refusal:
        made(**wishes)
    assert str(refusal.value) == f"report: --baseline {message}"


def test_the_best_of_many_is_said_to_be_selected(tmp_path, made):
    """And rightly so: of 20 equal variants the best one's mean is above what new seeds would give."""
    for i in range(20):
        sweep(tmp_path, [0.5 + math.sin(10 * i + seed) / 10 for seed in range(2)], conv=f"v{i}")
    (findings,) = made().findings
    said = selection(findings, "val/accuracy")
    assert said.startswith("Selected as the best of 20 by val/accuracy: v")
    assert "expect less of new seeds; its test/accuracy had no part in the choice" in said
    assert findings.whole.rows[0].score.mean > 0.55


def test_a_single_variant_is_not_said_to_be_selected(tmp_path, made):
    sweep(tmp_path, STANDARD)
    assert selection(made().findings[0], "val/accuracy") == "defaults: val/accuracy 0.9150 ± 0.0129, n = 4."


def test_costs_are_means_with_a_mark_on_the_front(tmp_path, made):
    run(tmp_path, 0.5, params=1000, macs=5_000_000, peak_memory_mb=100.0)
    run(tmp_path, 0.5, params=3000, macs=5_000_000, peak_memory_mb=None, seed=1)
    run(tmp_path, 0.4, conv="fft", params=4000, macs=4_000_000)
    (findings,) = made().findings
    grid = costs(findings.ranked, "val/accuracy")
    assert grid.header == ["variant", "parameters", "MACs", "s/epoch", "ms/batch", "memory MB"]
    # 3 s for 2 epochs; 64 images at 640 a second
    assert grid.rows[0] == ["standard", "* 2k", "* 5M", "* 1.5", "* 100", "* 100"]
    assert grid.rows[1] == ["fft", "4k", "* 4M", "1.5", "100", "-"]


def test_times_on_a_shared_machine_are_marked_and_not_ranked(tmp_path, made):
    run(tmp_path, 0.5, shared=True)
    run(tmp_path, 0.4, conv="fft")
    (findings,) = made().findings
    grid = costs(findings.ranked, "val/accuracy")
    assert [row[3:5] for row in grid.rows] == [["~1.5", "~100"], ["1.5", "100"]]
    assert "not ranked" in grid.note


def test_the_run_that_is_drawn_is_the_one_in_the_middle(tmp_path, made):
    sweep(tmp_path, [0.1, 0.9, 0.3, 0.5])
    (variant,) = made().findings[0].ranked
    assert median(variant, "val/accuracy").result.seed == 2
