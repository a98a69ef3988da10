"""Runs on disk that were never trained: what a report reads of them."""

import json
from pathlib import Path
from typing import Any

CHOICES = {"conv": "standard", "dataset": "digits", "logger": "none"}


def run(folder: Path, accuracy: float | None = None, *, seed: int = 0, **fields: Any) -> Path:
    """A folder with a result.json; `conv`, `dataset` and dotted keys of `values` say which run it is."""
    choices = CHOICES | {group: fields.pop(group) for group in CHOICES if group in fields}
    values = fields.pop("values", {}) | ({"seed": seed} if seed else {})
    metrics = {} if accuracy is None else {"val/accuracy": accuracy, "test/accuracy": accuracy - 0.01}
    result = {
        "id": "0123456789",
        "name": "default",
        "status": "failed" if accuracy is None else "done",
        "choices": choices,
        "values": values,
        "seed": seed,
        "metrics": metrics | fields.pop("metrics", {}),
        "epochs_done": 2,
        "params": 1000,
        "macs": 2000,
        "wall_s": 3.0,
        "images_per_s": 640.0,
        "device": "cpu",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
    } | fields
    path = folder / f"{'-'.join(map(str, [*choices.values(), *values.values()]))}-{seed}"
    while path.exists():
        path = path.with_name(f"{path.name}.1")
    path.mkdir(parents=True)
    (path / "result.json").write_text(json.dumps(result))
    (path / "config.yaml").write_text("seed: 0\nbatch_size: 64\n")
    return path
