"""A run's result: one JSON, written atomically. It is the truth; every dashboard mirrors it."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cnnlab.atomic import replacing
from cnnlab.config import Config, is_essential

REPLICATED = ("seed", "dataset.fold")  # all that replicates differ in
# In the names of metrics of which less is better.
FALLING = ("loss", "error", "rmse", "violation", "perplexity")


@dataclass
class Result:
    """What a run was, how it went and what came out.

    In `metrics`, `val/*` and `test/*` are those of the best epoch, `train/*` and `ortho/*` of the last; all
    but the keys under `time/` are deterministic. Accuracies are fractions.
    """

    id: str
    name: str
    status: str = "running"  # running, done, failed, interrupted or pruned; never written: refused, elsewhere
    choices: dict[str, str] = field(default_factory=dict)  # group -> word
    values: dict[str, Any] = field(default_factory=dict)  # dotted key -> value other than the default
    overrides: list[str] = field(default_factory=list)
    seed: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None  # counted from 1
    epochs_done: int = 0
    match: dict[str, float] | None = None  # the model's width that match= chose, its cost, and the budget
    params: int = 0
    macs: int = 0  # of the network for one image
    wall_s: float = 0.0
    images_per_s: float | None = None  # training images over the wall time of training batches alone
    peak_memory_mb: float | None = None
    device: str = ""
    precision: str = ""
    shared: bool = False  # the machine, with other jobs of a sweep: times are those of a crowd
    threads: int | None = None
    git: str | None = None  # commit of cnnlab's sources, with "+" where they differ from it
    versions: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # class -> hash of its source file
    started: str = ""  # UTC
    finished: str | None = None
    error: str | None = None
    traceback: str | None = None

    @classmethod
    def of(cls, config: Config, **known: Any) -> "Result":
        """The result of a configuration, as far as it is known."""
        return cls(
            id=config.id,
            name=config.tree["name"],
            choices=config.choices,
            values=config.values,
            overrides=config.overrides,
            seed=config.tree["seed"],
            **known,
        )

    def write(self, folder: Path) -> None:
        """Under its final name there is always a whole file."""
        with replacing(folder / "result.json") as part:
            part.write_text(json.dumps(_named(asdict(self)), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Result | None":
        """The result in a run's folder; None where there is none or where it is not a result."""
        try:
            content = json.loads((folder / "result.json").read_text())
            known = {key: content[key] for key in content.keys() & {f.name for f in fields(cls)}}
            metrics = {key: float(value) for key, value in known.get("metrics", {}).items()}
            return cls(**(known | {"metrics": metrics}))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    @property
    def summary(self) -> dict[str, Any]:
        """What one line of a dashboard tells: the metrics, how it ended, and what it cost."""
        names = "status best_epoch epochs_done params macs wall_s images_per_s peak_memory_mb"
        error = None if self.error is None else self.error.partition("\n")[0]
        return self.metrics | {name: getattr(self, name) for name in names.split()} | {"error": error}

    @property
    def variant(self) -> str:
        """What replicates share: choices and values but for seed and fold."""
        shared = {key: value for key, value in (self.choices | self.values).items() if is_essential(key)}
        return json.dumps(_named({k: v for k, v in shared.items() if k not in REPLICATED}), sort_keys=True)

    @property
    def replicate(self) -> tuple[int, int]:
        """Seed and fold: runs of two variants pair where these are equal."""
        fold = self.values.get("dataset.fold", 0)
        return self.seed, fold if isinstance(fold, int) else 0


def rises(metric: str) -> bool:
    """Whether more of a metric is better.

    >>> rises("val/accuracy"), rises("val/loss")
    (True, False)
    """
    return not any(word in metric for word in FALLING)


def _named(value: Any) -> Any:
    """JSON has no inf and nan: they are written as the strings "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
