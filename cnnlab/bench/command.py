"""`cnnlab bench OVERRIDES...`: what variants cost, each against nn.Conv2d on the same shape.

overrides -> configurations x shapes -> a row each (duel.py) -> a table on the terminal and in a file
"""

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.bench.costs import COSTS, Rows, compare
from cnnlab.bench.measurement import Measurement, Table
from cnnlab.compose import Composer
from cnnlab.config import Config, default_words, shown
from cnnlab.network import PARTS
from cnnlab.provenance import commit
from cnnlab.quiet import quiet_libraries
from cnnlab.terminal import announce
from cnnlab.verbs.parser import Parser

HELP = """\
What convolutions cost: parameters, multiply-accumulates (MACs), time, memory.

  cnnlab bench 'conv=glob(*)'
  cnnlab bench conv=decoupled_ball conv.rho=1,2 trainer.precision=32,bf16-mixed
  cnnlab bench model=alexnet --shape 3,227,227 --classes 1000

OVERRIDES choose as they do for training; several values give a row each. A
layer is compared with nn.Conv2d of the same shape (padding=same unless
conv.padding says otherwise); with model=WORD a network with itself under
conv=standard.
"""

METHOD = """\
forward is a pass of evaluation; fwd+bwd a training step but for the update,
with the gradient of a layer's input. Both run in channels_last, as in training.
Variant and baseline take turns, so that what slows the machine slows both:
figures are medians of the repeats' ratios ± half the distance of the quartiles.
state: bytes of parameters and buffers. peak: bytes that fwd+bwd takes above
what is in use before it (CPU: by the process; CUDA: from torch's allocator).
MACs are those of one image; torch's FlopCounterMode must agree where it sees
the operation. g: the groups that a layer has.

Exit code: 0 measured; 1 a variant failed, or its MACs are not torch's; 2 the
request was wrong. Ctrl-C keeps what is measured.
"""

# What may be set beside the words and knobs of what is measured.
KEYS = ("batch_size", "threads", "output_dir", "trusted")
TRAINER = ("trainer", "trainer.accelerator", "trainer.precision")

LAYER, NETWORK = "IN,OUT,KERNEL,SIZE", "C,H,W"
DEFAULT_SHAPES = {LAYER: "64,128,3,32", NETWORK: "3,32,32"}
DEFAULT_CLASSES = 10


def main(arguments: Sequence[str]) -> int:
    """Measure what the arguments of `cnnlab bench` ask for; returns the exit code."""
    parser = argument_parser()
    if (asked := parser.asked(arguments)) is None:
        return 0
    composer = Composer(asked.config_dir)
    configs = composer.sweep(asked.overrides)
    keys = [str(override.key_or_group) for override in composer.parse(asked.overrides)]
    parts = ("model", *PARTS) if "model" in keys else ("conv",)
    for line, key in zip(asked.overrides, keys, strict=True):
        refuse_unused(line, key, parts)
    shapes, classes = shapes_and_classes(asked, network="model" in parts)
    earlier = None if asked.against is None else Table.read(Path(asked.against))
    table = Table(machine(), datetime.now(UTC).isoformat(timespec="seconds"))
    path = writable(asked.save, configs, table.started)

    jobs = [(row(config, shape, parts), config) for shape in shapes for config in configs]
    settings = [measured.setting for measured, _ in jobs]
    jobs.sort(key=lambda job: settings.index(job[0].setting))
    quiet_libraries()
    from cnnlab.bench.duel import measure  # torch and Lightning: seconds

    rows = Rows((measured.variant for measured, _ in jobs), COSTS)
    try:
        for number, (measured, config) in enumerate(jobs, 1):
            announce(f"[{number}/{len(jobs)}] {measured.variant}, {measured.shape}")
            measure(measured, config, classes=classes, repeats=asked.repeats)
            table.rows.append(measured)
            if not table.refused:
                table.write(path)
            announce("")
            rows.costs(measured)
    finally:
        announce("")
        if not table.refused:
            print(path, file=sys.stderr)
    if earlier is not None:
        compare(earlier, table)
    if table.refused:
        raise RequestError(str(table.rows[0].refused))
    return int(any(measured.failed or measured.miscount for measured in table.rows))


def argument_parser() -> Parser:
    parser = Parser("bench", HELP, METHOD)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDES", help="GROUP=WORD, GROUP.KNOB=VALUE, KEY=VALUE")
    form = f"of a layer {LAYER} ({DEFAULT_SHAPES[LAYER]}), of a network {NETWORK} ({DEFAULT_SHAPES[NETWORK]})"
    add("--shape", action="append", type=_shape, metavar="N,N,...", help=f"{form}; repeatable")
    add("--classes", type=_whole, metavar="N", help=f"of a network ({DEFAULT_CLASSES})")
    add("--repeats", type=_whole, metavar="N", help="of each time; by default what takes some seconds")
    add("--save", metavar="FILE", help="the table as JSON (output_dir/bench/TIME.json)")
    add("--against", metavar="FILE", help="an earlier table to compare with")
    add("--config-dir", "-cd", metavar="DIR", help="your own YAML files")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text}")
    return int(text)


def _shape(text: str) -> str:
    numbers = [_whole(number) for number in text.split(",")]
    if len(numbers) not in (3, 4):
        raise argparse.ArgumentTypeError(f"must be {LAYER} or {NETWORK}, got {text}")
    return ",".join(map(str, numbers))


def shapes_and_classes(asked: argparse.Namespace, *, network: bool) -> tuple[list[str], int | None]:
    """The shapes in the one form that fits, and the classes that a network needs and a layer has not."""
    form, hint = (NETWORK, "") if network else (LAYER, "; model=WORD measures a network")
    shapes = asked.shape or [DEFAULT_SHAPES[form]]
    for shape in shapes:
        if shape.count(",") != form.count(","):
            raise RequestError(f"--shape {shape}: must be {form}{hint}")
    if asked.classes is not None and not network:
        raise RequestError(f"--classes {asked.classes}: a layer has none{hint}")
    return shapes, (asked.classes or DEFAULT_CLASSES) if network else None


def refuse_unused(line: str, key: str, parts: Sequence[str]) -> None:
    """What has no part in what is measured is refused rather than ignored."""
    group = key.partition(".")[0]
    if key in (*KEYS, *TRAINER) or group in parts:
        return
    network = "; model=WORD measures a network" if group in PARTS else ""
    raise RequestError(f"{line}: bench has no use for {key}{network}")


def writable(save: str | None, configs: Sequence[Config], started: str) -> Path:
    """Where the table goes, known to be a place that can be written."""
    folders = {config.tree["output_dir"] for config in configs}
    if len(folders) > 1:
        raise RequestError("output_dir: must be one, since one table is saved")
    name = f"{started[:19].replace(':', '')}Z.json"
    path = Path(*folders, "bench", name) if save is None else Path(save)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise PermissionError(0, "not a file that can be written")
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    return path


def row(config: Config, shape: str, parts: Sequence[str]) -> Measurement:
    """The row to be filled, with its setting as it was asked for."""
    lead, *others = parts
    defaults = default_words()
    words = {group: config.choices[group] for group in others if config.choices[group] != defaults[group]}
    values = {key: value for key, value in config.values.items() if key.partition(".")[0] in parts}
    told = (f"{key.removeprefix(f'{lead}.')}={shown(value)}" for key, value in (words | values).items())
    trainer, threads = config.tree["trainer"], config.tree["threads"]
    return Measurement(
        " ".join([config.choices[lead], *told]),
        shape,
        config.tree["batch_size"],
        str(trainer["precision"]),
        trainer["accelerator"],
        threads,
    )


def machine() -> dict[str, Any]:
    """What else times depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return {
        "cpu": next(names, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "torch": importlib.metadata.version("torch"),
        "git": commit(),
    }
