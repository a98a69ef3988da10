"""Data sets of huggingface.co, by huggingface_hub and in its cache: which commit is meant, and its files.

Nothing is asked that the cache knows. A branch is the commit it was when it was first asked for on this
machine, until `hf download --repo-type dataset OWNER/NAME` or another of the hub's programs renews it.
"""

import contextlib
import glob
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from cnnlab.allowed import text

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_repository(path: Any) -> bool:
    """Whether OWNER/NAME of a data set is meant, and not a folder: one that exists comes first.

    >>> [is_repository(path) for path in ("uoft-cs/cifar10", "./uoft-cs/cifar10", "/data/cifar10", "cifar10")]
    [True, False, False, False]
    """
    return isinstance(path, str) and NAME.fullmatch(path) is not None and not Path(path).exists()


def commit_of(name: str, revision: str | None, *, download: bool) -> str:
    """The 40 digits of the commit that a branch or tag is; without one that of the default branch.

    >>> commit_of("uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2", download=False)
    '0b2714987fa478483af9968de7c934580d0bb9a2'
    """
    if revision is not None and COMMIT.fullmatch(text("revision", revision)):
        return revision
    with in_one_line(name, revision) as hub:
        ask = partial(hub.HfApi().resolve_revision, name, repo_type="dataset", revision=revision)
        with contextlib.suppress(hub.errors.RevisionResolutionError):
            if COMMIT.fullmatch(known := ask(local_files_only=True).resolved):
                return known
        return ask(local_files_only=not download).resolved


def listed(name: str, commit: str, *, download: bool) -> list[str]:
    """The names of all files of a data set."""
    with in_one_line(name, commit) as hub:
        at = {"repo_id": name, "repo_type": "dataset", "revision": commit}
        try:
            return [file.path for file in hub.get_cached_repo_tree(**at)]
        except hub.errors.CachedRepoTreeNotFoundError:
            if download and not hub.constants.is_offline_mode():
                return hub.list_repo_files(**at)
        folder = Path(hub.snapshot_download(**at, local_files_only=True))  # by a hub that kept no list
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def fetched(name: str, commit: str, files: Sequence[str], *, download: bool) -> Path:
    """The folder of a data set in the hub's cache, which has these files whole; those missing are downloaded.

    Raises:
        FileNotFoundError: some are missing, and may not or could not be downloaded; says what to do.
    """
    with in_one_line(name, commit) as hub:
        patterns = [glob.escape(file) for file in files]
        snapshot = partial(hub.snapshot_download, name, repo_type="dataset", revision=commit)
        found = [hub.try_to_load_from_cache(name, file, None, commit, "dataset") for file in files]
        if not all(isinstance(path, str) for path in found):
            snapshot(allow_patterns=patterns, local_files_only=not download)
        return Path(snapshot(allow_patterns=patterns, local_files_only=True))


@contextlib.contextmanager
def in_one_line(name: str, revision: str | None) -> Iterator[ModuleType]:
    """huggingface_hub; what goes wrong with it is an error of one line."""
    try:
        import huggingface_hub as hub  # 0.2 s
        from huggingface_hub.utils import disable_progress_bars
        from huggingface_hub.utils.logging import set_verbosity_error
    except ImportError as error:
        raise ValueError(f"path={name} needs an extra: pip install 'cnnlab[hub]'") from error
    set_verbosity_error()
    if sys.stderr is None or not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield hub
    except Exception as error:  # whatever the hub, the net or the disk has to say
        raise FileNotFoundError(said(error, hub, name, revision)) from error


def said(error: Exception, hub: ModuleType, name: str, revision: str | None) -> str:
    """What went wrong, in one line that begins with the knob to blame."""
    import httpx2  # which huggingface_hub brings

    errors, url = hub.errors, hub.constants.ENDPOINT
    start = f"path={name}: " + "no such folder, and " * (revision is None)  # which may have been meant
    host = urlsplit(url).hostname
    *_, root = causes(error)
    if isinstance(
        root, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError | errors.RevisionResolutionError
    ):
        command = f"hf download --repo-type dataset {name}" + (f" --revision {revision}" if revision else "")
        way = "HF_HUB_OFFLINE=0" if hub.constants.is_offline_mode() else "dataset.download=true"
        return f"{start}not whole in {hub.constants.HF_HUB_CACHE}: {command}, or {way}"
    for cause in reversed([*causes(error)]):  # the first of them says most
        match cause:
            case errors.GatedRepoError():
                page = f"{url}/datasets/{name}"
                return f"{start}{host} asks for consent to terms: give it at {page}, then hf auth login"
            case errors.RevisionNotFoundError():
                return f"revision={revision}: {name} has no such branch, tag or commit"
            case errors.RepositoryNotFoundError():
                return f"{start}{host} has no such data set; if it is private, hf auth login"
            case errors.HfHubHTTPError():
                status = cause.response
                return f"{start}{host} answers {status.status_code} {status.reason_phrase}"
            case httpx2.ConnectError() | httpx2.TimeoutException():
                return f"{start}{host} does not answer"
    return start + " ".join(str(error).split())


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
