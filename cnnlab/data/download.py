"""Files from the net: under their own name they are whole and of the right checksum, or not there."""

import fcntl
import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

log = logging.getLogger("cnnlab")

TIMEOUT_S = 30
ATTEMPTS = 2  # with each mirror


class Remote(NamedTuple):
    """A file that a data set's authors offer: its name, its MD5 as they publish it, and where it lies."""

    name: str
    md5: str
    mirrors: tuple[str, ...]  # each with the name already in it, or ending in / for it to be added

    def urls(self) -> list[str]:
        return [url + self.name if url.endswith("/") else url for url in self.mirrors]


def home(name: str) -> Path:
    """Where the downloads of a data set go: $XDG_DATA_HOME/datasets/NAME (~/.local/share/datasets/NAME)."""
    share = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return Path(share, "datasets", name)


def located(root: str | None, otherwise: Path) -> Path:
    """The folder that a user names, or else the usual one, which need not be there yet."""
    if root is None:
        return otherwise
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"root={folder}: no such folder")
    return folder


def fetch(remote: Remote, folder: Path, *, download: bool) -> Path:
    """The file in the folder, downloaded if it is missing; what is there is never overwritten.

    Raises:
        FileNotFoundError: it is missing, and may not or could not be downloaded; says where to put it.
    """
    path = folder / remote.name
    if path.is_file():  # whoever reads it checks it: a second's work, of which decoded data spare a run
        return path
    by_hand = f"download {remote.urls()[0]} to {folder}{os.sep}"
    if not download:
        raise FileNotFoundError(f"root={folder}: no file {remote.name}; {by_hand}, or set download=true")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several runs that begin at once one downloads
            if not path.is_file():
                retrieve(remote, folder)
    except Exception as error:  # whatever the net, the disk or a checksum has to say
        said = reason(error)
        raise FileNotFoundError(
            f"root={folder}: no file {remote.name}, and no mirror gives it: {said}; {by_hand}"
        ) from error
    return path


def check(path: Path, md5: str) -> None:
    """Refuse a file that is not what its authors published."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise ValueError(f"root={path.parent}: {path.name} is damaged: its MD5 is {found}, should be {md5}")


def reason(error: Exception) -> str:
    """Why a download failed, in one line."""
    from requests.exceptions import ConnectionError, Timeout

    if isinstance(error, ConnectionError | Timeout) and error.request is not None:
        return f"{urlsplit(str(error.request.url)).hostname} does not answer"
    return " ".join(str(error).split())


def retrieve(remote: Remote, folder: Path) -> None:
    """Put a file into the folder from the first mirror that gives it whole; raises what the last one says."""
    import pooch  # 0.2 s

    pooch.get_logger().setLevel(logging.ERROR)
    progress = sys.stderr is not None and sys.stderr.isatty()
    download = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT_S)
    *firsts, last = (url for url in remote.urls() for _ in range(ATTEMPTS))
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:

        def retrieved(url: str) -> str:
            return pooch.retrieve(url, f"md5:{remote.md5}", fname=remote.name, path=part, downloader=download)

        for url in firsts:
            try:
                os.replace(retrieved(url), folder / remote.name)
                return
            except Exception as error:
                log.debug("%s: %s", url, error)
        os.replace(retrieved(last), folder / remote.name)
