"""What all tests share: no W&B account or cache of the user's, no folder but the test's own."""

import logging
import os
import tempfile
from collections.abc import Iterator

import pytest

# Two workers on two cores: a pool of threads in each would only make them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    cache = tempfile.TemporaryDirectory(prefix="cnnlab-")
    config.add_cleanup(cache.cleanup)
    os.environ["CNNLAB_CACHE"] = cache.name  # not by a fixture, which doctests would not get


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    log = logging.getLogger("cnnlab")
    handlers = [*log.handlers]
    yield
    log.handlers[:] = handlers  # a command has put its own, for a terminal that is this test's alone
