"""A run's folder as a training leaves it, without the training."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.result import Result

KNOWN = {
    "status": "done",
    "metrics": {"val/accuracy": 0.75, "test/accuracy": 0.5, "time/images_per_s": 1000.0},
    "params": 1000,
    "device": "cpu",
    "precision": "32-true",
    "threads": 1,
    "git": "0123abc",
    "versions": {"python": "3.11.7", "cnnlab": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
    "started": "2026-11-21T04:57:37+00:00",
}


def record(output_dir: Path, *lines: str, config: Config | None = None, **known: Any) -> Path:
    """Write config.yaml and result.json of the run that these lines ask for, or of a configuration."""
    config = config or Composer().one([*lines, f"output_dir={output_dir}"])
    folder = config.folder
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config.tree), folder / "config.yaml")
    asked = {"choices": config.choices, "values": config.values, "overrides": config.overrides}
    Result(config.id, config.tree["name"], **{**KNOWN, **asked, **known}).write(folder)
    return folder
