"""What a search has found: the best trials, what mattered, where a range was too narrow, the best command."""

import shlex
from collections.abc import Sequence

from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial
from rich.table import Table

from cnnlab.report.table import console, say, spread
from cnnlab.search.space import Space
from cnnlab.search.study import Study
from cnnlab.search.values import edge, text

SHOWN = 10  # of the best trials
TELLING = 20  # complete trials: with fewer, a key without any effect may seem important


def show(study: Study, seeds: range) -> None:
    """The end of a search, whose best trial has been run with these seeds."""
    best = study.complete
    stopped = f", {len(study.stopped)} stopped or diverged" if study.stopped else ""
    say(f"{len(best)} of {study.n_trials} trials complete{stopped}")
    console.print(table(study, best))
    console.print("The first is selected as the best of many: expect less of it on other data or seeds.")
    if shares := importances(study):
        told = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        console.print(f"Importance: {told}", soft_wrap=True)
    for line in edges(study.space, best[0]):
        console.print(line, style="yellow", soft_wrap=True)
    console.print(command(study.space.lines(best[0].params), seeds), soft_wrap=True, markup=False)


def table(study: Study, best: Sequence[FrozenTrial]) -> Table:
    """The best trials, their values as mean ± standard deviation over seeds."""
    shown = Table(box=None)
    for key in study.space.searched:
        shown.add_column(key, overflow="fold")
    shown.add_column(study.settings.metric, justify="right", no_wrap=True)
    shown.add_column("n", justify="right")
    for trial in best[:SHOWN]:
        chosen = [
            text(values, trial.params[key]) if key in trial.params else "-"
            for key, values in study.space.searched.items()
        ]
        values = trial.user_attrs["values"]
        shown.add_row(*chosen, spread(values), str(len(values)))
    return shown


def importances(study: Study) -> dict[str, float]:
    """Each key's share in what a random forest explains of the values; none where trials are too few.

    Of Optuna's evaluators the one that gives a key without any effect the least: with 20 trials 0.1 at most,
    where fANOVA and PED-ANOVA give it up to 0.6.
    """
    if len(study.complete) < TELLING:
        return {}
    shares = get_param_importances(study.study, evaluator=MeanDecreaseImpurityImportanceEvaluator(seed=0))
    return shares if len(shares) > 1 else {}


def edges(space: Space, best: FrozenTrial) -> list[str]:
    """A line for each key whose best value lies at an end of its range."""
    ends = {key: edge(space.searched[key], value) for key, value in best.params.items()}
    return [
        f"{key}={text(space.searched[key], value)} lies at {ends[key]}: a better one may lie beyond"
        for key, value in best.params.items()
        if ends[key] is not None
    ]


def command(lines: Sequence[str], seeds: range) -> str:
    """The command line that runs the best trial again.

    >>> command(["conv=fft", "optimizer.betas=[0.9,0.99]"], range(0, 3))
    "cnnlab -m conv=fft 'optimizer.betas=[0.9,0.99]' 'seed=range(0,3)'"
    """
    if len(seeds) == 1:
        return f"cnnlab {shlex.join(lines)}"
    lines = [line for line in lines if not line.startswith("seed=")]
    return f"cnnlab -m {shlex.join([*lines, f'seed=range({seeds.start},{seeds.stop})'])}"
