"""What a variant costs, and the table of many: one JSON, written atomically."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.atomic import replacing

Quartiles = tuple[float, float, float]


@dataclass
class Measurement:
    """A row: a variant on a shape, and how it compares with nn.Conv2d (or the same model made of that)."""

    variant: str  # the word and what differs from its defaults: "decoupled_tanh rho=2.0"
    shape: str  # of a layer IN,OUT,KERNEL,SIZE; of a network C,H,W
    batch_size: int
    precision: str
    device: str
    threads: int | None
    groups: int | None = None  # that a layer really has
    params: int | None = None
    param_bytes: int | None = None
    state_bytes: int | None = None  # of parameters and buffers
    macs: int | None = None  # for one image
    macs_by_torch: int | None = None  # as FlopCounterMode counts; None where it sees nothing of it
    forward: Quartiles | None = None  # time of a pass of evaluation, as a multiple of the baseline's
    step: Quartiles | None = None  # time of forward + backward, likewise
    baseline_forward_ms: float | None = None  # median
    baseline_step_ms: float | None = None
    forward_repeats: int | None = None
    step_repeats: int | None = None
    peak_bytes: int | None = None  # of forward + backward; None where that cannot be measured
    baseline_peak_bytes: int | None = None
    refused: str | None = None  # why the variant cannot be had like this
    failed: str | None = None  # what went wrong that should not

    @property
    def setting(self) -> tuple[Any, ...]:
        """What rows must share to be compared."""
        return self.shape, self.batch_size, self.precision, self.device, self.threads

    @property
    def key(self) -> tuple[Any, ...]:
        return self.variant, *self.setting

    @property
    def miscount(self) -> str | None:
        if self.macs_by_torch in (None, self.macs):
            return None
        return f"macs() says {self.macs:,}, torch counts {self.macs_by_torch:,}"


@dataclass
class Table:
    """The rows of one `cnnlab bench`, the machine they were measured on, and when."""

    machine: dict[str, Any]
    started: str  # UTC
    rows: list[Measurement] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether nothing could be measured."""
        return all(row.refused for row in self.rows)

    def write(self, path: Path) -> None:
        """Under its final name there is always a whole file."""
        with replacing(path) as part:
            part.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Table":
        known = {f.name for f in fields(Measurement)}
        try:
            content = json.loads(path.read_text())
            rows = [Measurement(**{k: v for k, v in row.items() if k in known}) for row in content["rows"]]
            return cls(dict(content["machine"]), str(content["started"]), rows)
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RequestError(f"{path}: not a table of cnnlab bench") from error
