"""Where a result comes from: the commit, the versions, the source files of its classes."""

import hashlib
import importlib.metadata
import platform
import subprocess
from typing import Any

import cnnlab
from cnnlab.config import Config, flatten
from cnnlab.registry import PACKAGE
from cnnlab.signature import signature

LIBRARIES = ("torch", "pytorch-lightning", "hydra-core", "numpy")


def of(config: Config) -> dict[str, Any]:
    """`git`, `versions` and `sources` of a result."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    versions |= {"python": platform.python_version(), "cnnlab": cnnlab.__version__}
    return {"git": commit(), "versions": versions, "sources": sources(config)}


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
