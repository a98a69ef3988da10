"""A search asked again goes on where it stopped, prefers what is good, and counts only what is done."""

import dataclasses
import math
import statistics

import pytest

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.result import Result
from cnnlab.search.command import search
from cnnlab.search.settings import Settings
from cnnlab.search.space import space_of
from cnnlab.search.study import Study
from cnnlab.search.summary import edges, importances

LR = "optimizer.lr=tag(log, interval(1e-4, 1e-1))"
BEST_LR = 1e-2


def good(config: Config) -> dict[str, float]:
    """Best at BEST_LR, and a little better with each seed."""
    off = abs(math.log10(config.tree["optimizer"]["lr"] / BEST_LR))
    return {"val/accuracy": 0.9 - 0.2 * off + 0.01 * config.tree["seed"], "val/loss": off}


class Runs:
    """Stands in for the training: remembers what it was asked for; `befalls` says what happens instead."""

    def __init__(self, befalls=lambda config: {}, jobs: int = 1) -> None:
        self.befalls, self.jobs = befalls, jobs
        self.trained: list[Config] = []

    def __call__(self, configs: list[Config]) -> list[Result]:
        results = []
        for config in configs:
            happens = {"status": "done", "metrics": good(config)} | self.befalls(config)
            self.trained.append(config)
            results.append(Result.of(config, **happens))
        return results

    @property
    def lrs(self) -> list[float]:
        return [config.tree["optimizer"]["lr"] for config in self.trained]


@pytest.fixture
def ask(tmp_path):
    """Search with these lines and settings; the exit code."""

    def ask(runs: Runs, *lines: str, **settings) -> int:
        lines = lines or (LR,)
        node = {"_target_": "x", **dataclasses.asdict(Settings()), **settings}
        return search(Composer(), [*lines, f"output_dir={tmp_path}"], node, runs, lambda config: runs.jobs)

    return ask


def study_of(tmp_path, *lines: str, n_trials: int = 20, **settings) -> Study:
    settings = Settings(**settings)
    space = space_of(Composer(), lines or [LR])
    return Study(tmp_path / "journal", "x", space, settings, n_trials)


def test_asked_again_a_search_runs_nothing_and_more_trials_are_added(ask):
    first, again, more = Runs(), Runs(), Runs()
    assert ask(first, n_trials=6) == ask(again, n_trials=6) == ask(more, n_trials=9) == 0
    assert len(first.lrs) == 6 and again.lrs == [] and len(more.lrs) == 3
    assert len({*first.lrs, *more.lrs}) == 9, "the random numbers do not begin anew"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_stopped_anywhere_goes_on_with_the_trials_of_one_never_stopped(ask, sampler):
    whole = Runs()
    ask(whole, LR, "name=whole", n_trials=14, sampler=sampler)
    stopped = Runs()
    for stops in (3, 11):

        def stop(config, stops=stops):
            if len(stopped.trained) == stops:
                raise KeyboardInterrupt
            return {}

        stopped.befalls = stop
        with pytest.raises(KeyboardInterrupt):
            ask(stopped, LR, "name=stopped", n_trials=14, sampler=sampler)
    stopped.befalls = lambda config: {}
    ask(stopped, LR, "name=stopped", n_trials=14, sampler=sampler)
    assert stopped.lrs == whole.lrs


def test_tpe_draws_nearer_to_the_best_than_random_does(ask):
    learned, drawn = Runs(), Runs()
    ask(learned, n_trials=40, sampler="tpe")
    ask(drawn, n_trials=40, sampler="random")

    def off(runs: Runs) -> float:
        return statistics.mean(abs(math.log10(lr / BEST_LR)) for lr in runs.lrs[20:])

    assert off(learned) < 0.5 * off(drawn)


def test_losses_are_minimized(ask, tmp_path, capsys):
    ask(Runs(), n_trials=5, metric="val/loss")
    shown = capsys.readouterr().out
    losses = [float(line.split()[-1]) for line in shown.splitlines() if "/5]" in line]
    best = next(line for line in shown.splitlines() if line.startswith("cnnlab "))
    lr = float(best.rpartition("=")[2])
    assert math.isclose(abs(math.log10(lr / BEST_LR)), min(losses), rel_tol=1e-2)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_finite_space_is_drawn_from_without_replacement(ask, sampler):
    runs = Runs()
    lines = ["conv=standard,decoupled_tanh", "conv.rho=1,2,3", "optimizer.lr=1e-3,1e-2"]
    assert ask(runs, *lines, n_trials=50, sampler=sampler) == 0
    assert len(runs.trained) == len({config.id for config in runs.trained}) == 8


def test_a_trial_is_the_mean_over_its_seeds(ask, capsys):
    runs = Runs()
    ask(runs, "optimizer.lr=1e-2,1e-3", "seed=4", seeds=3, n_trials=2)
    assert sorted(config.tree["seed"] for config in runs.trained) == [4, 4, 5, 5, 6, 6]
    shown = capsys.readouterr().out
    assert "0.9500 ± 0.0100" in shown, "0.94, 0.95, 0.96"
    assert "'seed=range(4,7)'" in shown


def test_where_the_first_seed_fails_the_others_are_spared(ask):
    def fail(config):
        return {"status": "failed", "error": "x"} if config.tree["optimizer"]["lr"] == 0.01 else {}

    runs = Runs(fail)
    assert ask(runs, "optimizer.lr=1e-2,1e-3", seeds=3) == 1
    assert sorted(runs.lrs) == [1e-3, 1e-3, 1e-3, 1e-2]


def test_what_failed_is_not_done_and_asked_again_is_run_again(ask, capsys):
    def fail(config):
        return {"status": "failed", "error": "OSError: full"} if config.tree["seed"] == 1 else {}

    failing, mended = Runs(fail), Runs()
    assert ask(failing, seeds=2, n_trials=4) == 1
    assert "OSError: full" in capsys.readouterr().out
    assert ask(mended, seeds=2, n_trials=4) == 0
    assert sorted({*mended.lrs}) == sorted({*failing.lrs}), "the same trials, no others"


def test_a_loss_that_is_not_finite_is_a_bad_value_and_not_tried_again(ask, capsys):
    def diverge(config):
        high = config.tree["optimizer"]["lr"] > BEST_LR
        return {"status": "failed", "error": "the loss is nan at step 3"} if high else {}

    runs, again = Runs(diverge), Runs()
    assert ask(runs, n_trials=10) == 0
    assert ask(again, n_trials=10) == 0 and again.lrs == []
    bad = sum(lr > BEST_LR for lr in runs.lrs)
    assert bad > 0 and f"{10 - bad} of 10 trials complete, {bad} stopped" in capsys.readouterr().out


def test_a_metric_that_is_not_finite_never_wins(ask, capsys):
    ask(Runs(lambda c: {"metrics": {"val/loss": math.nan}} if c.tree["optimizer"]["lr"] < 1e-3 else {}),
        n_trials=12, metric="val/loss")  # fmt: skip
    assert "optimizer.lr=0.0" in capsys.readouterr().out.splitlines()[-1]


def test_each_stage_trains_longer_in_a_narrower_space_that_holds_the_best(ask):
    runs = Runs()
    ask(runs, LR, "epochs=20", stages=[1, 5], n_trials=[12, 8, 4])
    stages = [[c for c in runs.trained if c.tree["epochs"] == epochs] for epochs in (1, 5, 20)]
    assert [len(stage) for stage in stages] == [12, 8, 4]
    lrs = [[c.tree["optimizer"]["lr"] for c in stage] for stage in stages]
    assert lrs[1][0] == max(stages[0], key=lambda c: good(c)["val/accuracy"]).tree["optimizer"]["lr"]
    spans = [max(stage) / min(stage) for stage in lrs]
    assert spans[0] > spans[1] > spans[2] and min(lrs[2]) <= BEST_LR <= max(lrs[2])


def test_parallel_jobs_get_different_trials(ask):
    runs = Runs(jobs=4)
    ask(runs, n_trials=10)
    assert len(runs.lrs) == len({*runs.lrs}) == 10


def test_how_many_run_at_a_time_is_asked_of_a_run_of_the_search(tmp_path):
    asked: list[Config] = []
    node = {"_target_": "x", **dataclasses.asdict(Settings(n_trials=[2]))}
    lines = [LR, "trainer=cpu", "threads=1", f"output_dir={tmp_path}"]
    assert search(Composer(), lines, node, Runs(), lambda config: asked.append(config) or 1) == 0
    assert [config.choices["trainer"] for config in asked] == ["cpu"] and asked[0].tree["threads"] == 1


def test_processes_share_a_study(tmp_path):
    ours, theirs = study_of(tmp_path, n_trials=6), study_of(tmp_path, n_trials=6)
    drawn = []
    while (mine := ours.next(1)) and (other := theirs.next(1)):
        for study, (trial,) in ((ours, mine), (theirs, other)):
            drawn.append(trial.params["optimizer.lr"])
            study.tell(trial, [0.5], [])
    assert len({*drawn}) == 6 and theirs.next(1) == []
    assert len(ours.complete) == len(theirs.complete) == 6


def test_a_trial_told_by_two_processes_keeps_its_first_value(tmp_path):
    (trial,) = study_of(tmp_path).next(1)
    (again,) = study_of(tmp_path).next(1)
    assert again.params == trial.params, "left open, so it is run again"
    study_of(tmp_path).tell(trial, [0.5], [])
    study_of(tmp_path).tell(again, [0.25], [])
    study_of(tmp_path).tell_bad(again)
    study_of(tmp_path).tell_bad(again, 0.25, 1)
    assert [t.value for t in study_of(tmp_path).complete] == [0.5]


def test_a_journal_torn_by_a_kill_is_read_to_its_last_whole_line(ask, tmp_path):
    runs, again = Runs(), Runs()
    ask(runs, n_trials=5)
    with (tmp_path / "default" / "search.journal").open("a") as journal:
        journal.write('{"op_code":4,"stud')
    ask(again, n_trials=7)
    assert len(again.lrs) == 2


def test_a_journal_that_is_none_is_named(ask, tmp_path):
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "search.journal").write_text("what is this\nand this\n")
    with pytest.raises(RequestError, match=r"search\.journal: is broken"):
        ask(Runs())


def test_medians_are_those_of_the_complete_trials_at_the_same_epoch(tmp_path):
    study = study_of(tmp_path, prune_from=2)
    for k in range(5):
        assert study.medians(4) == [None, None, None], "too few to tell"
        (trial,) = study.next(1)
        study.tell(trial, [0.5], [0.1 * k, 0.2 * k, None, 0.5][: 4 if k else 2])
    assert study.medians(5) == [None, 0.4, None, None], "from epoch 2; unknown at 3; too few at 4"
    assert study.medians(2) == [None], "the last epoch ends a run anyway"


def test_a_stopped_trial_has_a_rank_but_is_not_complete(tmp_path):
    study = study_of(tmp_path)
    first, second = study.next(2)
    study.tell(first, [0.5], [])
    study.tell_bad(second, 0.7, 2)
    assert [t.number for t in study.complete] == [0]
    assert [(t.number, t.value) for t in study.stopped] == [(1, 0.7)]


def test_the_bars_of_a_run_are_not_part_of_what_it_is(ask, tmp_path):
    runs = Runs()

    def history(config):
        config.folder.mkdir(parents=True)
        (config.folder / "history.csv").write_text("step,epoch,val/accuracy\n5,1,0.3\n10,2,0.4\n")
        return {}

    runs.befalls = history
    ask(runs, LR, "epochs=3", prune_from=1, n_trials=6)
    bars = [config.tree.get("sweep", {}).get("prune") for config in runs.trained]
    assert bars[:5] == [None] * 5
    assert bars[5] == {"metric": "val/accuracy", "maximize": True, "bars": [0.3, 0.4]}
    last = runs.trained[5]
    assert last.id == Composer().one(last.overrides).id


def test_a_best_value_at_the_edge_is_told(tmp_path):
    study = study_of(tmp_path, "optimizer.lr=1e-3,1e-2,1e-1", "activation=relu,elu")
    for trial in study.next(6):
        study.tell(trial, [float(trial.params["optimizer.lr"])], [])
    assert edges(study.space, study.complete[0]) == [
        "optimizer.lr=0.1 lies at the upper end of 0.001 to 0.1: a better one may lie beyond"
    ]


def test_what_mattered_is_told_apart_from_what_did_not(tmp_path):
    study = study_of(tmp_path, LR, "loss.label_smoothing=interval(0,0.5)", sampler="random", n_trials=40)
    for trial in study.next(40):
        study.tell(trial, [-abs(math.log10(trial.params["optimizer.lr"] / BEST_LR))], [])
    assert importances(study)["optimizer.lr"] > 0.8
    assert importances(study_of(tmp_path, LR, n_trials=3)) == {}


def test_what_no_run_can_be_made_of_is_refused_in_one_line(ask):
    refused = Runs(lambda config: {"status": "refused", "error": "conv=x conv.rho=-1: must be > 0"})
    with pytest.raises(RequestError, match=r"conv\.rho=-1"):
        ask(refused)
    assert len(refused.trained) == 1
    with pytest.raises(RequestError, match="val/f1: no such metric; there are val/accuracy, val/loss"):
        ask(Runs(), LR, "name=f1", metric="val/f1")
    with pytest.raises(RequestError, match=r"stages=\[5\]: must be fewer epochs than epochs=5"):
        ask(Runs(), LR, "epochs=5", stages=[5])
    with pytest.raises(RequestError, match="output_dir=/dev/null/x: "):
        search(Composer(), [LR, "output_dir=/dev/null/x"], {}, Runs(), lambda config: 1)


def test_values_that_do_not_go_together_are_a_bad_trial(ask, capsys):
    runs = Runs()
    assert ask(runs, "conv=standard,fft", "ortho_weight=0,inf") == 0
    assert len(runs.trained) == 3
    assert "ortho_weight=inf: turns conv=standard into orthogonal" in capsys.readouterr().out
