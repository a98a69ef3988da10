"""A run on W&B that never blocks, stops or fails what it mirrors."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from cnnlab.allowed import number, one_of

log = logging.getLogger("cnnlab")

Mode = Literal["auto", "online", "offline"]
LONGEST_TAG, LONGEST_NAME = 64, 128  # characters that W&B takes
SETTINGS = {
    "finish_timeout_raises": True,
    # Killed before its first flush a run leaves a record on which `wandb sync` gives up, for all runs asked.
    "x_transaction_log_flush_interval": 0.1,
}


class Mirror:
    """Opens a W&B run whose files are all in `folder`/wandb; `run` is None where that failed.

    Online where an API key is configured, else offline; `mode=auto` follows WANDB_MODE. If W&B does not
    answer within `init_timeout` seconds the run is recorded offline (`wandb sync` uploads that), uploading
    the rest at the end takes `finish_timeout` seconds at most, and whatever goes wrong is told in one
    warning. A run that `continues` keeps what the server has of it, else that is overwritten.

    Raises: ValueError for a knob out of range; nothing that W&B raises.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str,
        entity: str | None,
        mode: Mode,
        init_timeout: float,
        finish_timeout: float,
        name: str,
        group: str,
        tags: Sequence[str],
        continues: bool = False,
        **identity: Any,
    ) -> None:
        if not isinstance(project, str) or not re.fullmatch(r"[^/\\#?%:]{1,128}", project):
            raise ValueError(f"project must be 1 to 128 characters without / \\ # ? % :, got {project!r}")
        one_of("mode", mode, get_args(Mode))
        self._timeouts = {
            "init_timeout": number("init_timeout", init_timeout, above=0),
            "finish_timeout": number("finish_timeout", finish_timeout, above=0),
        }
        self.folder = folder.resolve()
        self.run: Any = None
        self.trouble = ""  # the first that there was
        with self.shielded("W&B could not be started, so it has no record of this run"):
            self.run = self._start(
                mode,
                continues,
                project=project,
                entity=entity,
                dir=str(self.folder),
                name=name[:LONGEST_NAME],
                group=group[:LONGEST_NAME],
                tags=list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag)),
                **identity,
            )

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """End the run. One that a signal stopped (128 + its number) counts as preempted: it can go on.

        Not one of a W&B sweep, whose agent signals what is to stop for good: it would be sent out again.
        """
        if self.run is None:
            return
        import wandb

        with self.shielded():
            self.run.log({})  # ends the last row, which would overwrite the summary
            self.run.summary.update(dict(summary))
            if exit_code > 128 and self.run.sweep_id is None:
                self.run.mark_preempting()
        with self.shielded():
            self.run.finish(exit_code)
        if self.trouble:  # a client that broke would complain on stderr when the process exits
            with self.shielded():
                wandb.teardown()
        self.run = None

    @contextlib.contextmanager
    def shielded(
        self, consequence: str = "W&B failed, its record of this run is incomplete"
    ) -> Iterator[None]:
        """Let W&B write in the folder only, wait no longer than agreed, and fail with a warning."""
        cache = str(self.folder / "wandb" / "cache")
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

    def _start(self, mode: str, continues: bool, **identity: Any) -> Any:
        import wandb

        def start(mode: str) -> Any:
            # `wandb sync` would add an earlier attempt's record to this one's, which has it all.
            shutil.rmtree(self.folder / "wandb", ignore_errors=True)
            (self.folder / "wandb").mkdir(parents=True)
            wandb.setup(wandb.Settings(silent=True, console="off"))
            mode = chosen(mode)
            return wandb.init(
                mode=mode,  # type: ignore[arg-type]
                resume="allow" if continues and mode == "online" else None,
                reinit="create_new",  # neither take over nor end another run of this process
                settings={**SETTINGS, **self._timeouts},
                **identity,
            )

        try:
            return start(mode)
        except Exception as error:
            wandb.teardown()  # else: run ID is in use
            run = start("offline")
            self._warn("W&B did not start, recording offline", error)
            return run

    def _warn(self, consequence: str, error: BaseException) -> None:
        """Tell the first trouble in one line; what follows from it is not worth another."""
        if not self.trouble:
            self.trouble = f"{consequence} ({f'{type(error).__name__}: {error}'.splitlines()[0]})"
            log.warning("%s", self.trouble)


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
