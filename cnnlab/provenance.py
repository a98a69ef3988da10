"""Where a result comes from: the commit, the versions, the source files of its classes."""

import functools
import hashlib
import importlib.metadata
import platform
import re
import subprocess
from typing import Any

import cnnlab
from cnnlab.config import Config, flatten
from cnnlab.registry import PACKAGE
from cnnlab.signature import signature


def of(config: Config) -> dict[str, Any]:
    """`git`, `versions` and `sources` of a result."""
    return {"git": commit(), "versions": dict(versions()), "sources": sources(config)}


@functools.cache
def versions() -> dict[str, str]:
    """Of Python, cnnlab and what cnnlab declares to need, without its extras."""
    try:
        declared = importlib.metadata.requires("cnnlab") or []
    except importlib.metadata.PackageNotFoundError:  # sources that were never installed
        declared = []
    needed = [re.split(r"[^\w.-]", line)[0] for line in declared if "extra ==" not in line]
    found = {name: importlib.metadata.version(name) for name in needed}
    return {"python": platform.python_version(), "cnnlab": cnnlab.__version__, **found}


def sources(config: Config) -> dict[str, str]:
    """Class -> hash of the file that defines it; a library's classes are told by its version instead."""
    targets = {value for key, value in flatten(config.tree).items() if key.endswith("._target_")}
    hashes = {}
    for target in sorted(targets):
        found = signature(target) if target.partition(".")[0] not in ("torch", "pytorch_lightning") else None
        if found is not None:
            hashes[target] = hashlib.sha256(found.file.read_bytes()).hexdigest()[:10]
    return hashes


def commit() -> str | None:
    """The commit of cnnlab's sources, with `+` where they differ from it; None where git knows none."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository: only a tracked file is of ours.
    if (
        git("ls-files", "--error-unmatch", "__init__.py") is None
        or (head := git("rev-parse", "--short", "HEAD")) is None
    ):
        return None
    return head + ("+" if git("status", "--porcelain", "--", ".", "../conf") else "")
