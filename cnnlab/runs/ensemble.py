"""`cnnlab evaluate RUN... ensemble=true`: several trained networks judge as one."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from cnnlab.allowed import RequestError
from cnnlab.config import flatten, is_essential, shown
from cnnlab.report.find import runs_below
from cnnlab.report.table import console
from cnnlab.runs.recorded import Run, find
from cnnlab.runs.restored import BEST, as_trained, blaming, restored
from cnnlab.verbs.diff import ABSENT, unequal

if TYPE_CHECKING:
    from torch import Tensor

    from cnnlab.data.images import ImageData

PARTS = ("val", "test")


class Member(NamedTuple):
    """A network: one checkpoint of a run."""

    run: Run
    checkpoint: Path  # in the run's folder


class Judged(NamedTuple):
    """Accuracies on validation and test of each member, and of the mean of their probabilities."""

    members: list[dict[str, float]]
    ensemble: dict[str, float]


def members(names: Sequence[str], output_dir: str = "outputs", top: int | None = None) -> list[Member]:
    """The best weights of several runs; of a single run named, its checkpoints.

    A name is a run's folder, the beginning of its id, or a folder: of all runs below it that are done, of
    those with one id the last. `top` keeps those that are best on validation, by accuracy, then by loss.

    Raises: RequestError where they are fewer than two, not done, or do not share data and split.
    """
    runs = list({run.folder.resolve(): run for name in names for run in _runs(name, output_dir)}.values())
    if top is not None:
        runs = sorted(runs, key=_score, reverse=True)[:top]
    found = [Member(run, BEST) for run in runs]
    if len(found) == 1 and top is None:
        found = _checkpoints(runs[0])
    if len(found) < 2:
        raise RequestError(f"ensemble: needs two members or more, got {len(found)} of {', '.join(names)}")
    for one, other in pairwise(runs):
        for key, pair in unequal(_data(one), _data(other)).items():
            had = " and ".join(f"{key}={value if value is ABSENT else shown(value)}" for value in pair)
            ids = f"{one.result.id} and {other.result.id}"
            raise RequestError(f"ensemble: members must share data and split, {ids} have {had}")
    return found


def judged(found: Sequence[Member], trusted: Sequence[str] = ()) -> Judged:
    """How right the members are alone and together; the ensemble's class has the largest mean probability.

    A probability is the softmax of a network's class scores, in float64: of a loss other than cross-entropy
    it is a mere ranking between 0 and 1.

    Source: Karpathy et al., CS231n notes, "Model Ensembles".
    Raises: RequestError where the data have no classes, are missing, or the weights do not fit.
    """
    from cnnlab.build import build_data

    data = build_data(as_trained(found[0].run, trusted))
    totals: dict[str, Tensor] = {}
    alone = []
    for member in found:
        probabilities = _probabilities(member, data, trusted)
        alone.append(_accuracies(probabilities, data))
        totals = {part: totals.get(part, 0) + p for part, p in probabilities.items()}
    return Judged(alone, _accuracies(totals, data))


def show(found: Sequence[Member], accuracies: Judged) -> None:
    """A row a member, their mean, and the ensemble."""
    table = Table(box=None)
    table.add_column("member", no_wrap=True)
    for part in PARTS:
        table.add_column(f"{part}/accuracy", justify="right", no_wrap=True)
    one_run = len({member.run.folder for member in found}) == 1
    mean = {part: sum(a[part] for a in accuracies.members) / len(found) for part in PARTS}
    names = [member.checkpoint.stem if one_run else member.run.result.id for member in found]
    rows = [*zip(names, accuracies.members, strict=True), ("mean of these", mean)]
    for name, row in [*rows, (f"ensemble of {len(found)}", accuracies.ensemble)]:
        table.add_row(name, *(f"{row[part]:.4f}" for part in PARTS))
    console.print(table)


def _runs(name: str, output_dir: str) -> Iterable[Run]:
    folder = Path(name)
    if not folder.is_dir() or (folder / "result.json").exists():
        run = find(name, output_dir)
        if run.result.status != "done":
            raise RequestError(
                f"{run.folder}: must be done to be a member, its status is {run.result.status}"
            )
        return [run]
    runs = sorted(runs_below([folder]).runs, key=lambda run: run.result.started)
    done = [run for run in runs if run.result.status == "done" and (run.folder / BEST).is_file()]
    last = {run.result.id: run.folder for run in done}  # resume=false keeps the same run aside
    return [find(str(folder)) for folder in sorted(last.values())]


def _score(run: Run) -> tuple[float, float]:
    metrics = run.result.metrics
    return metrics.get("val/accuracy", -1.0), -metrics.get("val/loss", float("inf"))


def _data(run: Run) -> dict[str, Any]:
    """What says which images are trained on and which are not; a key that came later was null before."""
    node = flatten({"dataset": run.config.tree["dataset"]})
    return {key: value for key, value in node.items() if value is not None and is_essential(key)}


def _checkpoints(run: Run) -> list[Member]:
    """Each network that a run kept, once, in the order in which they were trained."""
    import torch

    steps: dict[int, Member] = {}
    for path in sorted((run.folder / BEST.parent).glob("*.ckpt")):
        with blaming(path):
            kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if "global_step" in kept:
                steps.setdefault(kept["global_step"], Member(run, path.relative_to(run.folder)))
    return [member for _, member in sorted(steps.items())]


def _probabilities(member: Member, data: "ImageData", trusted: Sequence[str]) -> "dict[str, Tensor]":
    """Of every image of validation and test, (N, classes)."""
    import torch

    config = as_trained(member.run, trusted)
    data.batch_size = config.tree["batch_size"]  # as when its metrics were recorded
    with blaming(member.run.folder / member.checkpoint):
        task, trainer = restored(member.run, config, member.checkpoint)
        if data.targets != "class":
            raise RequestError(f"ensemble: takes classes, {config.says('dataset')} has {data.targets}")
        probabilities = {}
        for part, loader in zip(PARTS, (data.val_dataloader(), data.test_dataloader()), strict=True):
            scores = torch.cat(trainer.predict(task, loader))  # type: ignore[arg-type]
            if hasattr(task.loss, "class_scores"):
                scores = task.loss.class_scores(scores)  # type: ignore[operator]
            probabilities[part] = scores.double().softmax(1).cpu()
    return probabilities


def _accuracies(scores: "dict[str, Tensor]", data: "ImageData") -> dict[str, float]:
    labels = {"val": data.val[1], "test": data.test[1]}
    return {p: float((scores[p].argmax(1) == labels[p].cpu()).double().mean()) for p in PARTS}
