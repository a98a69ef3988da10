"""sweep.json: every run that was ever asked for in a folder, frozen before the first of them begins.

    <output_dir>/<name>/sweep.json = {run id: {folder, tree, choices, values, overrides}}

Threads change bits, so they are part of what is frozen: a run asked for again has those it was given first.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.atomic import replacing
from cnnlab.sweep.job import Job

NAME = "sweep.json"


def fix(jobs: Sequence[Job], threads: int) -> None:
    """List the jobs in the manifests of their folders, and give each the threads it is to have.

    Raises:
        RequestError: a folder cannot be written.
    """
    for folder in folders(jobs):
        with _locked(folder):
            known = read(folder)
            for job in jobs:
                if job.folder.parent == folder:
                    before = known.get(job.config.id, {}).get("tree", {}).get("threads")
                    fixed = job.config.tree["threads"] or before or threads
                    job.config = replace(job.config, tree=job.config.tree | {"threads": fixed})
                    known[job.config.id] = {"folder": job.folder.name, **asdict(job.config)}
            with replacing(folder / NAME) as part:
                part.write_text(json.dumps(known))


def folders(jobs: Sequence[Job]) -> list[Path]:
    """The folders of the jobs' manifests, made where they are missing.

    Raises:
        RequestError: a folder cannot be written.
    """
    found = sorted({job.folder.parent for job in jobs})
    for folder in found:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"output_dir={folder.parent}: {error.strerror}") from error
    return found


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifest of a folder; empty where there is none."""
    try:
        content = json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two sweeps that begin at once do not forget each other's runs."""
    try:
        with (folder / f"{NAME}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise RequestError(f"output_dir={folder.parent}: {error.strerror}") from error
