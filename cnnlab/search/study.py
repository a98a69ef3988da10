"""The memory of a search: an Optuna study in a journal, which any number of processes may share."""

import contextlib
import fcntl
import json
import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from cnnlab.allowed import RequestError
from cnnlab.search.settings import Settings
from cnnlab.search.space import Space

ENOUGH = 5  # complete trials that a median needs


class Study:
    """Trials of one space. One stays open until its runs have ended; asked again, those are run again.

    To the sampler an open trial is a bad one, until it is told better. Each trial is drawn from (seed, its
    number), so that neither an interruption nor what was drawn before moves the random numbers.
    """

    def __init__(self, journal: Path, identity: str, space: Space, settings: Settings, n_trials: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.settings = space, settings
        self.n_trials = int(min(n_trials, space.size))
        finite = math.isfinite(space.size)
        exhaustible = finite and (settings.sampler == "random" or space.size <= n_trials)
        self.sampler = "exhaustive" if exhaustible else settings.sampler
        lock = JournalLock(journal)
        lock.mend()
        try:
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=lock)),  # type: ignore[arg-type]
                study_name=_name(identity, space, settings),
                direction="maximize" if settings.maximize else "minimize",
                sampler=optuna.samplers.RandomSampler(),
                load_if_exists=True,
            )
        except ValueError as error:
            raise RequestError(
                f"{journal}: is broken; without it the search begins anew, but for its runs"
            ) from error
        self.left_open = [trial.number for trial in self.trials if trial.state == TrialState.RUNNING]

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials, without those whose values were never drawn to the end."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if self.space.holds(trial.params)]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials with a value, the best first."""
        trials = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return sorted(trials, key=lambda trial: trial.value or 0.0, reverse=self.settings.maximize)

    @property
    def stopped(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state == TrialState.PRUNED]

    def begin_with(self, chosen: dict[str, Any]) -> None:
        """Let these values be the first trial."""
        if not self.trials:
            self.study.enqueue_trial(chosen, skip_if_exists=True)

    def next(self, at_most: int) -> list[FrozenTrial]:
        """Trials to run now: first those left open, then new ones; none where there are enough."""
        numbers, self.left_open = self.left_open[:at_most], self.left_open[at_most:]
        while len(numbers) < at_most and len(self.trials) < self.n_trials:
            with self._sampling(draw=len(self.study.get_trials(deepcopy=False))):
                trial = self.study.ask()
                self.space.suggest(trial)
            numbers.append(trial.number)
        every = self.study.get_trials(deepcopy=False)
        return [every[number] for number in numbers]

    @contextlib.contextmanager
    def _sampling(self, draw: int) -> Iterator[None]:
        seed = int(np.random.SeedSequence([self.settings.seed, draw]).generate_state(1)[0])
        before = self.study.sampler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study.sampler = {
                "tpe": optuna.samplers.TPESampler,
                "random": optuna.samplers.RandomSampler,
                "exhaustive": optuna.samplers.BruteForceSampler,
            }[self.sampler](seed=seed)
        yield
        self.study.sampler = before  # when it is told, an exhausted BruteForceSampler raises

    def tell(self, trial: FrozenTrial, values: Sequence[float], curve: Sequence[float | None]) -> None:
        """The trial's values, one a seed, and the first seed's epoch by epoch."""
        with contextlib.suppress(UpdateFinishedTrialError):  # another process was first, with the same runs
            told = optuna.Trial(self.study, trial._trial_id)
            told.set_user_attr("values", list(values))
            told.set_user_attr("curve", list(curve))
            self.study.tell(trial.number, statistics.fmean(values))

    def tell_bad(self, trial: FrozenTrial, value: float | None = None, epochs: int = 0) -> None:
        """The trial was stopped after so many epochs, or came to nothing that another try would change."""
        with contextlib.suppress(UpdateFinishedTrialError):
            if value is not None:
                optuna.Trial(self.study, trial._trial_id).report(value, epochs)
            self.study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)

    def medians(self, epochs: int) -> list[float | None]:
        """For each epoch but the last the median of the complete trials, None where it says nothing yet."""
        first = self.settings.prune_from
        curves = [trial.user_attrs.get("curve", []) for trial in self.complete]
        medians: list[float | None] = []
        for epoch in range(1, epochs):
            values = [curve[epoch - 1] for curve in curves if len(curve) >= epoch]
            known = [value for value in values if value is not None]
            enough = first is not None and epoch >= first and len(known) >= ENOUGH
            medians.append(statistics.median(known) if enough else None)
        return medians


class JournalLock:
    """Excludes other processes while it is held, and no longer than its process lives."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def acquire(self) -> bool:
        self.file = self.journal.open("ab+")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        self.file.close()

    def mend(self) -> None:
        """Cut a last line that a kill has torn: Optuna could read no journal that goes on after it."""
        self.acquire()
        self.file.seek(0)
        whole = self.file.read().rfind(b"\n") + 1
        self.file.truncate(whole)
        self.release()


def _name(identity: str, space: Space, settings: Settings) -> str:
    """The same search is the same study; how many trials it has does not matter."""
    says = {
        "identity": identity,
        "owned": [line for key, line in space.fixed.items() if key in space.owners],
        "searched": {key: distribution_to_json(values) for key, values in space.searched.items()},
        "settings": [settings.metric, settings.maximize, settings.sampler, settings.seed],
        "seeds": settings.seeds,
        "prune_from": settings.prune_from,
    }
    return sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:10]
