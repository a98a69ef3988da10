"""The knobs of the search, `hydra.sweeper.KNOB` on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from cnnlab.allowed import RequestError, one_of, text, whole
from cnnlab.result import rises


@dataclass(frozen=True)
class Settings:
    """Search of values and words by Optuna, asked again it goes on.

    A stage is `n_trials` trials. Each of `stages` trains for that many epochs and hands a narrower space to
    the next; the last trains for `epochs`. The sampler `tpe` learns from the trials before, `random` does
    not; a finite space that `random`, or that many trials, can exhaust is drawn from without replacement.

    Source: tree-structured Parzen estimator: Bergstra et al. 2011; random: Bergstra & Bengio 2012; coarse to
    fine: CS231n, hyperparameter optimization.
    Raises: ValueError for a knob out of range.

    >>> Settings(stages=[1, 5], n_trials=[20, 10, 5]).trials
    [20, 10, 5]
    """

    sampler: str = "tpe"
    n_trials: int | Sequence[int] = 20  # of each stage, or one number a stage
    stages: Sequence[int] = ()  # epochs of the stages before the full one
    seeds: int = 1  # a trial's value is the mean over so many
    metric: str = "val/accuracy"
    direction: str | None = None  # maximize or minimize; None: losses and errors are minimized
    prune_from: int | None = None  # epoch from which runs below the median are stopped; None: none is
    seed: int = 0  # of the sampler

    def __post_init__(self) -> None:
        one_of("sampler", self.sampler, ["tpe", "random"])
        rising = isinstance(self.stages, Sequence) and all(type(epochs) is int for epochs in self.stages)
        if not rising or [*self.stages] != sorted({*self.stages}) or min(self.stages, default=1) < 1:
            raise ValueError(f"stages must be a list of rising numbers of epochs, got {self.stages!r}")
        if isinstance(self.n_trials, list) and len(self.n_trials) != len(self.stages) + 1:
            raise ValueError(
                f"n_trials must be a number, or one for each of {len(self.stages) + 1} stages, "
                f"got {self.n_trials!r}"
            )
        for trials in self.trials:
            whole("n_trials", trials, at_least=1)
        whole("seeds", self.seeds, at_least=1)
        if not text("metric", self.metric).startswith("val/"):
            raise ValueError(f"metric must be of the validation, as val/accuracy is, got {self.metric!r}")
        if self.direction is not None:
            one_of("direction", self.direction, ["maximize", "minimize"])
        if self.prune_from is not None:
            whole("prune_from", self.prune_from, at_least=1)
        whole("seed", self.seed, at_least=0, at_most=2**31 - 1)

    @property
    def trials(self) -> list[Any]:
        """One number of trials a stage."""
        given = self.n_trials
        return list(given) if isinstance(given, list) else [given] * (len(self.stages) + 1)

    @property
    def maximize(self) -> bool:
        if self.direction is None:
            return rises(self.metric)
        return self.direction == "maximize"


def settings_of(node: Mapping[str, Any]) -> Settings:
    """The settings of Hydra's sweeper node.

    Raises:
        RequestError: a knob is out of range, or Optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise RequestError("hydra/sweeper=search: needs Optuna, as pip install 'cnnlab[search]' does it")
    try:
        return Settings(**{knob: value for knob, value in node.items() if knob != "_target_"})
    except ValueError as error:
        raise RequestError(f"hydra/sweeper=search hydra.sweeper.{error}") from error
