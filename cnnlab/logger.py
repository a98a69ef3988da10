"""Where a run's metrics go besides its own folder: to W&B, to a CSV file, or nowhere.

Loggers are mirrors, the run's own history is the truth: a resumed run hands it over and the mirror is
rebuilt from it, so that nothing is lost or doubled, whatever happened to the attempt before.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import loggers
from pytorch_lightning.utilities import rank_zero_only

from cnnlab.mirror import Mirror, Mode

History = Sequence[Mapping[str, float]]  # a run's rows: "step", "epoch" and metrics
BY_EPOCH = ("train/*", "val/*", "ortho/*", "conv/*", "time/*")  # drawn over epochs, all else over steps
BY_STEP = ("train/loss_step",)  # though a pattern above has it


class WandbLogger(loggers.Logger):
    """Weights & Biases: online where an API key is configured, else offline.

    `mode=auto` follows WANDB_MODE. W&B never blocks, stops or fails a run: if it does not answer within
    `init_timeout` seconds the run is recorded offline (`wandb sync` uploads that), uploading the rest at the
    end takes `finish_timeout` seconds at most, and whatever goes wrong is told in one warning.

    Differs: Lightning's own WandbLogger sets WANDB_MODE for the process, reuses a run that is still open,
    and appends to the rows that a resumed run has already.
    Raises: ValueError for a knob out of range; nothing that W&B raises.
    """

    def __init__(
        self,
        *,
        project: str = "cnnlab",
        entity: str | None = None,
        mode: Mode = "auto",
        init_timeout: float = 5.0,
        finish_timeout: float = 60.0,
        folder: Path,
        run_id: str,
        name: str,
        summary: str,
        tags: Sequence[str],
        config: Mapping[str, Any],
        history: History,
    ):
        super().__init__()
        self._name, self._version, self._folder = name, run_id, Path(folder).resolve()
        self._mirror: Mirror | None = None
        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        self._mirror = Mirror(
            self._folder,
            project=project,
            entity=entity,
            mode=mode,
            init_timeout=init_timeout,
            finish_timeout=finish_timeout,
            id=run_id,
            group=name,
            name=summary,
            job_type="train",
            tags=tags,
            config=dict(config),
            continues=bool(history),
        )
        if (run := self._mirror.run) is None:
            return
        with self._mirror.shielded():
            run.define_metric("epoch", hidden=True)
            for pattern in BY_EPOCH:
                run.define_metric(pattern, step_metric="epoch", step_sync=False)
            for key in BY_STEP:
                run.define_metric(key)
            for row in history:  # the client drops the steps that the server of a resumed run has
                run.log(metrics_of(row), step=int(row["step"]))

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def experiment(self) -> Any:
        """The W&B run, or None where there is none."""
        return self._mirror.run if self._mirror else None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._mirror and (run := self._mirror.run) is not None:
            with self._mirror.shielded():
                run.log(dict(metrics), step=step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration was sent at the start."""

    def conclude(self, summary: Mapping[str, Any], exit_code: int, images: Mapping[str, np.ndarray]) -> None:
        """Send the summary and the images (HWC, uint8), and end the W&B run."""
        if not self._mirror or (run := self._mirror.run) is None:
            return
        import wandb

        with self._mirror.shielded():
            run.log({key: wandb.Image(image) for key, image in images.items()}, commit=False)
        self._mirror.finish(summary, exit_code)


class CSVLogger(loggers.CSVLogger):
    """One table of all metrics: csv/metrics.csv in the run folder."""

    def __init__(self, *, folder: Path, history: History, **unused: Any):
        shutil.rmtree(Path(folder) / "csv", ignore_errors=True)  # an earlier attempt's
        super().__init__(folder, name="csv", version="")
        for row in history:
            self.log_metrics(metrics_of(row), int(row["step"]))

    def conclude(self, summary: Mapping[str, Any], exit_code: int, images: Mapping[str, np.ndarray]) -> None:
        """Write out what is still held in memory."""
        self.finalize("success" if exit_code == 0 else "failed")


def metrics_of(row: Mapping[str, float]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "step"}


def none(**unused: Any) -> None:
    """No logger: the run folder has the history and the result anyway."""
