"""Where a run's metrics go besides its own folder: to W&B, to a CSV file, or nowhere.

Loggers are mirrors, the run's own history is the truth: a resumed run hands it over and the mirror is
rebuilt from it, so that nothing is lost or doubled, whatever happened to the attempt before.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning import loggers
from pytorch_lightning.utilities import rank_zero_only

from cnnlab.allowed import number, one_of

log = logging.getLogger("cnnlab")

History = Sequence[Mapping[str, float]]  # a run's rows: "step", "epoch" and metrics
LONGEST_TAG, LONGEST_NAME = 64, 128  # characters that W&B takes


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
        mode: Literal["auto", "online", "offline"] = "auto",
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
        if not isinstance(project, str) or not re.fullmatch(r"[^/\\#?%:]{1,128}", project):
            raise ValueError(f"project must be 1 to 128 characters without / \\ # ? % :, got {project!r}")
        one_of("mode", mode, ["auto", "online", "offline"])
        self._timeouts = {
            "init_timeout": number("init_timeout", init_timeout, above=0),
            "finish_timeout": number("finish_timeout", finish_timeout, above=0),
        }
        self._name, self._version, self._folder = name, run_id, Path(folder).resolve()
        self._warned = False
        self._run: Any = None
        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        with self._shielded("W&B could not be started, the run goes on without it"):
            self._run = self._start(
                mode,
                resume="allow" if history else None,  # None overwrites what the server has under this id
                project=project,
                entity=entity,
                dir=str(self._folder),
                id=run_id,
                group=name[:LONGEST_NAME],
                name=summary[:LONGEST_NAME],
                job_type="train",
                tags=list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag)),
                config=dict(config),
            )
            for row in history:  # the client drops the steps that the server of a resumed run has
                self._run.log(metrics_of(row), step=int(row["step"]))

    def _start(self, mode: str, resume: str | None, **identity: Any) -> Any:
        import wandb

        def start(mode: str, resume: Any = None) -> Any:
            # `wandb sync` would add an earlier attempt's record to this one's; `history` has it all.
            shutil.rmtree(self._folder / "wandb", ignore_errors=True)
            (self._folder / "wandb").mkdir(parents=True)
            wandb.setup(wandb.Settings(silent=True, console="off"))
            mode = chosen(mode)
            return wandb.init(
                mode=mode,  # type: ignore[arg-type]
                resume=resume if mode == "online" else None,
                reinit="create_new",  # neither take over nor end another run of this process
                settings={**self._timeouts, "finish_timeout_raises": True},
                **identity,
            )

        try:
            return start(mode, resume)
        except Exception as error:
            wandb.teardown()  # else: run ID is in use
            run = start("offline")
            self._warn("W&B did not start, recording offline", error)
            return run

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
        return self._run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is not None:
            with self._shielded():
                self._run.log(dict(metrics), step=step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration was sent at the start."""

    def conclude(self, metrics: Mapping[str, Any], exit_code: int, images: Mapping[str, np.ndarray]) -> None:
        """Send the final table and the images (HWC, uint8), and end the W&B run."""
        if self._run is None:
            return
        import wandb

        with self._shielded():
            self._run.log({key: wandb.Image(image) for key, image in images.items()}, commit=False)
            rows = [list(row) for row in metrics.items()]
            table = wandb.Table(["metric", "value"], rows, allow_mixed_types=True)
            self._run.log({"result": table}, commit=False)
        with self._shielded():
            self._run.log({})  # ends the last row, which would overwrite the summary
            self._run.summary.update(dict(metrics))
        with self._shielded():
            self._run.finish(exit_code)
        if self._warned:  # a client that broke would complain on stderr when the process exits
            with self._shielded():
                wandb.teardown()
        self._run = None

    @contextlib.contextmanager
    def _shielded(
        self, consequence: str = "W&B failed, its record of this run is incomplete"
    ) -> Iterator[None]:
        """Let W&B write in the run folder only, wait no longer than agreed, and fail with a warning."""
        cache = str(self._folder / "wandb" / "cache")
        patience_s = str(round(min(max(1, self._timeouts["init_timeout"]), 3600)))
        wanted = {"WANDB_CACHE_DIR": cache, "WANDB_DATA_DIR": cache, "WANDB_HTTP_TIMEOUT": patience_s}
        ours = {key: value for key, value in wanted.items() if key not in os.environ}
        os.environ.update(ours)
        try:
            yield
        except (Exception, SystemExit) as error:  # W&B exits where its client process died
            self._warn(consequence, error)
        finally:
            for key in ours:
                os.environ.pop(key, None)

    def _warn(self, consequence: str, error: BaseException) -> None:
        """Tell the first trouble in one line; what follows from it is not worth another."""
        if not self._warned:
            log.warning("%s (%s)", consequence, f"{type(error).__name__}: {error}".splitlines()[0])
        self._warned = True


def chosen(mode: str) -> str:
    """`auto` is WANDB_MODE, else online. Without a key it is offline, for W&B would ask for one."""
    import wandb
    from wandb.sdk.lib import wbauth

    settings = wandb.setup().settings
    wanted = settings.mode if mode == "auto" else mode
    if wanted != "online":
        return wanted
    host = settings.base_url
    if wbauth.authenticate_session(host=host, source="cnnlab", prompt=False, update_session=False):
        return "online"
    if "online" in (mode, os.environ.get("WANDB_MODE")):
        raise LookupError("no API key is configured")
    return "offline"


class CSVLogger(loggers.CSVLogger):
    """One table of all metrics: csv/metrics.csv in the run folder."""

    def __init__(self, *, folder: Path, history: History, **unused: Any):
        shutil.rmtree(Path(folder) / "csv", ignore_errors=True)  # an earlier attempt's
        super().__init__(folder, name="csv", version="")
        for row in history:
            self.log_metrics(metrics_of(row), int(row["step"]))

    def conclude(self, metrics: Mapping[str, Any], exit_code: int, images: Mapping[str, np.ndarray]) -> None:
        """Write out what is still held in memory."""
        self.finalize("success" if exit_code == 0 else "failed")


def metrics_of(row: Mapping[str, float]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "step"}


def none(**unused: Any) -> None:
    """No logger: the run folder has the history and the result anyway."""
