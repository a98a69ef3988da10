"""A run's folder: opened once, locked against a second process, kept whole whatever kills the first."""

import fcntl
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import IO

from omegaconf import OmegaConf

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.result import Result

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def finished(config: Config) -> Result | None:
    """The result of this very configuration where it is done and not to be run afresh; needs no torch."""
    result = Result.read(config.folder) if config.tree["resume"] else None
    return result if result is not None and result.status == "done" else None


class Taken(RequestError):
    """Another process is training this very run."""


def is_taken(folder: Path) -> bool:
    """Whether some process holds the lock of a run's folder."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class RunFolder:
    """Context that holds `<output_dir>/<name>/<summary>-<id>/` and its lock.

    With `resume=false` a folder that exists is kept aside as `<...>.1`, `<...>.2`, and a new one begun.

    Raises:
        RequestError: the folder cannot be written.
        Taken: another process is training this very run.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = config.folder
        self.checkpoints = self.path / "checkpoints"
        self.lock: IO[str] | None = None

    def __enter__(self) -> "RunFolder":
        try:
            self._open()
        except OSError as error:
            self._close()
            raise RequestError(f"output_dir={self.config.tree['output_dir']}: {error.strerror}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        if not (self.path / "result.json").exists():  # refused before it began
            shutil.rmtree(self.path)
        self._close()

    def _open(self) -> None:
        self._take_lock()
        if not self.config.tree["resume"] and (self.path / "result.json").exists():
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
                number += 1
            self.path.rename(aside)
            old = self.lock
            self._take_lock()
            if old is not None:
                old.close()  # only now: nobody may come in between
        self.checkpoints.mkdir(exist_ok=True)
        OmegaConf.save(OmegaConf.create(self.config.tree), self.path / "config.yaml")
        self.log = logging.FileHandler(self.path / "log.txt")
        self.log.setFormatter(logging.Formatter(LOG_FORMAT))
        logging.getLogger().addHandler(self.log)

    def _take_lock(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise Taken(f"{self.path}: another process is training this run") from None
        self.lock = lock

    def _close(self) -> None:
        if hasattr(self, "log"):
            logging.getLogger().removeHandler(self.log)
            self.log.close()
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def failed(config: Config, error: str, trace: str | None) -> Result:
    """Record that a run failed, where it could not do so itself."""
    config = replace(config, tree=config.tree | {"resume": True})  # its folder stays where it is
    try:
        with RunFolder(config):
            result = Result.read(config.folder) or Result.of(config)
            result.status, result.error, result.traceback = "failed", error, trace
            result.write(config.folder)
            return result
    except Taken as taken:  # the server is gone, and with it the news of a job that lives on
        return Result.of(config, status="elsewhere", error=str(taken))
    except RequestError as unwritable:
        return Result.of(config, status="failed", error=f"{error} ({unwritable})", traceback=trace)
