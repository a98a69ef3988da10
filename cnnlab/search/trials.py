"""A study's trials are run: asked for, trained over their seeds, told."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from optuna.trial import FrozenTrial

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.history import History
from cnnlab.report.table import console, number
from cnnlab.result import Result
from cnnlab.search.settings import Settings
from cnnlab.search.study import Study

Train = Callable[[list[Config]], list[Result]]  # configurations in, results out, in their order


@dataclass
class Attempt:
    """A trial, its configurations (one a seed), and the results so far."""

    trial: FrozenTrial
    configs: list[Config]
    results: list[Result] = field(default_factory=list)

    @property
    def problem(self) -> Result | None:
        return next((result for result in self.results if result.status != "done"), None)


class Trials:
    """Runs trials, `jobs` at a time; where a trial's first seed fails, the others are spared."""

    def __init__(self, composer: Composer, settings: Settings, train: Train, jobs: int) -> None:
        self.composer, self.settings, self.train, self.jobs = composer, settings, train, jobs
        self.failures: list[str] = []  # of the trials left open

    def conduct(self, study: Study) -> None:
        """Run trials until there are enough; those that fail stay open.

        Raises:
            RequestError: constructors refuse every run, or runs have no such metric.
        """
        while trials := study.next(self.jobs):
            attempts = []
            for trial in trials:
                try:
                    attempts.append(Attempt(trial, self._configs(study, trial)))
                except RequestError as error:  # each value is allowed, but not beside the others
                    study.tell_bad(trial)
                    self._say(study, trial, str(error))
            self._train(attempts, slice(0, 1))
            refused = [attempt.results[0] for attempt in attempts if attempt.results[0].status == "refused"]
            if refused and len(refused) == len(attempts) and not study.complete:
                raise RequestError(refused[0].error)
            self._train([attempt for attempt in attempts if attempt.problem is None], slice(1, None))
            for attempt in attempts:
                self._tell(study, attempt)

    def _configs(self, study: Study, trial: FrozenTrial) -> list[Config]:
        lines = study.space.lines(trial.params)
        first = self.composer.one(lines)
        tree = first.tree
        medians = study.medians(tree["epochs"])
        if any(median is not None for median in medians):
            bar = {"metric": self.settings.metric, "maximize": self.settings.maximize, "bars": medians}
            first = replace(first, tree=tree | {"sweep": tree.get("sweep", {}) | {"prune": bar}})
        lines = [line for line in lines if not line.startswith("seed=")]
        seeds = range(tree["seed"] + 1, tree["seed"] + self.settings.seeds)
        return [first, *(self.composer.one([*lines, f"seed={seed}"]) for seed in seeds)]

    def _train(self, attempts: Sequence[Attempt], seeds: slice) -> None:
        configs = [config for attempt in attempts for config in attempt.configs[seeds]]
        found = {result.id: result for result in self.train(configs)} if configs else {}
        for attempt in attempts:
            for config in attempt.configs[seeds]:
                attempt.results.append(found.get(config.id) or Result.of(config, status="pending"))

    def _tell(self, study: Study, attempt: Attempt) -> None:
        trial, problem, metric = attempt.trial, attempt.problem, self.settings.metric
        if problem is None:
            values = [self._value(result) for result in attempt.results]
            said = f"{metric} {number(statistics.fmean(values))}"
            if all(map(math.isfinite, values)):
                study.tell(trial, values, self._curve(attempt.configs[0]))
            else:
                study.tell_bad(trial)
        else:
            said = f"{problem.status}: {problem.error}"
            if problem.status == "pruned":
                study.tell_bad(trial, problem.metrics.get(metric), problem.epochs_done)
            elif _diverged(problem):
                study.tell_bad(trial)
            else:
                self.failures.append(f"{' '.join(study.space.varied(trial.params))}: {said}")
        self._say(study, trial, said)

    def _value(self, result: Result) -> float:
        metric = self.settings.metric
        if metric not in result.metrics:
            known = ", ".join(sorted(name for name in result.metrics if name.startswith("val/")))
            raise RequestError(f"hydra.sweeper.metric={metric}: no such metric; there are {known}")
        return result.metrics[metric]

    def _curve(self, config: Config) -> list[float | None]:
        """The metric after each epoch."""
        rows = History(config.folder / "history.csv").rows() if self.settings.prune_from is not None else []
        known = {int(row["epoch"]): row[self.settings.metric] for row in rows if self.settings.metric in row}
        return [known.get(epoch) for epoch in range(1, max(known, default=0) + 1)]

    def _say(self, study: Study, trial: FrozenTrial, outcome: str) -> None:
        varied = " ".join(study.space.varied(trial.params))
        console.print(
            f"[{trial.number + 1}/{study.n_trials}] {varied}: {outcome}", markup=False, soft_wrap=True
        )


def _diverged(result: Result) -> bool:
    """Whether the same values would fail again, to the same bit: the loss was not finite."""
    return result.status == "failed" and (result.error or "").startswith("the loss is ")
