"""What happens in each layer while it trains, every n steps: to history.csv, the logger, and pictures."""

import logging
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cnnlab.allowed import number, whole
from cnnlab.logger import WandbLogger
from cnnlab.monitor import figures, picture
from cnnlab.monitor.advice import advice
from cnnlab.monitor.histograms import Histogram, Histograms
from cnnlab.recorder import Recorder

log = logging.getLogger("cnnlab")

Seen = tuple[nn.Module, Tensor, Tensor]  # a module, its input, its output


class LayerMonitor(pl.Callback):
    """Per layer: update ratios, weights near zero, dead and saturated units, histograms.

    At the first step and at every n-th one a row of history.csv has, for each convolution (conv1, conv2, ...
    in the net's order) and dense layer (dense1, ...),

        update_ratio/LAYER   |change of the weight| / |weight| of this step; near 1e-3 is healthy
        near_zero/LAYER      fraction of weights of at most `near_zero` times the largest
        dead/LAYER           fraction of units with one output for all of the batch
        saturated/LAYER      fraction of outputs within 1 % of a bound, where the activation has two

    and histograms.jsonl the distribution of weights, their gradients and the activations, in `bins` bins. A
    layer's activation is the one that follows it, its own output where none does; its weight is the effective
    one. At the end monitor.png, histograms.png and filters.png show it all, with advice in plain words.

    Nothing of it changes a bit of the run: it is a circumstance, like the logger, and not part of the id.

    Source: Karpathy et al., CS231n notes, "Babysitting the learning process".
    Raises: ValueError where a knob is out of range.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 100,
        near_zero: float = 1e-3,
        bins: int = 64,
        recorder: Recorder,
        activations: tuple[type, ...],
    ) -> None:
        self.every_n_steps = whole("every_n_steps", every_n_steps, at_least=1)
        self.near_zero = number("near_zero", near_zero, at_least=0, below=1)
        self.bins = whole("bins", bins, at_least=1)
        self.recorder, self.activations = recorder, activations
        self.folder = recorder.history.path.parent
        self.histograms = Histograms(self.folder / "histograms.jsonl")
        self.hooks: list[Any] = []  # set while a monitored step runs
        self.step = 0  # of these hooks, counted from 1
        self.before: dict[str, Tensor] = {}  # layer -> weight before that step
        self.last: str | None = None  # layer that was asked last
        self.outputs: dict[str, Seen] = {}  # of each layer and its activation

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.histograms.cut(after=trainer.global_step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step + 1  # with accumulation it has several batches
        if self.hooks or (step != 1 and step % self.every_n_steps):
            return
        layers = figures.named_layers(task.net)  # type: ignore[arg-type]
        self.step = step
        self.before = {name: figures.weights(layer).clone() for name, layer in layers.items()}
        names = {layer: name for name, layer in layers.items()}
        inside = {part for layer in names for part in layer.modules()} - names.keys()

        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.last = names.get(module, self.last)
            if self.last is not None:
                self.outputs[self.last] = module, inputs[0].detach(), output.detach()

        self.hooks = [
            module.register_forward_hook(note)
            for module in set(task.net.modules()) - inside  # type: ignore[union-attr]
            if module in names or isinstance(module, self.activations)
        ]

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.hooks or trainer.global_step < self.step:
            return
        for hook in self.hooks:
            hook.remove()
        numbers, histograms = self.look(figures.named_layers(task.net))  # type: ignore[arg-type]
        self.hooks, self.before, self.last, self.outputs = [], {}, None, {}
        self.recorder.record(trainer, numbers)
        self.histograms.append(trainer.global_step, trainer.current_epoch, histograms)
        if isinstance(self.recorder.logger, WandbLogger):
            self.recorder.logger.log_metrics(_for_wandb(histograms), step=trainer.global_step)

    @torch.no_grad()
    def look(self, layers: dict[str, nn.Module]) -> tuple[dict[str, float], dict[str, Histogram]]:
        """Figures and histograms of the step that was just trained."""
        numbers, values = dict[str, Tensor](), dict[str, Tensor]()
        for name, layer in layers.items():
            weight = values[f"weight/{name}"] = figures.weights(layer)
            numbers[f"near_zero/{name}"] = figures.near_zero(weight, self.near_zero)
            if gradients := [p.grad for p in figures.trained(layer) if p.grad is not None]:
                values[f"gradient/{name}"] = figures.joined(gradients)
                numbers[f"update_ratio/{name}"] = figures.update_ratio(self.before[name], weight)
        for name, (module, input, output) in self.outputs.items():
            values[f"activation/{name}"] = output
            if module is not layers[name]:
                numbers[f"dead/{name}"] = figures.dead(output)
                if (bounds := figures.bounds(module, input)) is not None:
                    numbers[f"saturated/{name}"] = figures.saturated(output, *bounds)
        counted = _read({name: figures.histogram(tensor, self.bins) for name, tensor in values.items()})
        return _read(numbers), {
            name: Histogram(low, high, [int(count) for count in counts])
            for name, (low, high, *counts) in counted.items()
        }

    def conclude(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Say what is to be said, and draw; the pictures given and these, by name, as in the run's folder."""
        from PIL import Image

        rows = self.recorder.history.rows()
        said = advice(rows)
        for line in said:
            log.warning(line)
        try:
            drawn = picture.curves(rows, said), picture.distributions(self.histograms.read())
            named = zip(("monitor", "histograms"), drawn, strict=True)
            images = images | {name: picture.pixels(figure) for name, figure in named}
            for name, image in images.items():
                Image.fromarray(image).save(self.folder / f"{name}.png")
        except Exception as error:  # a run does not fail for want of a picture
            log.warning("monitor: no pictures (%s: %s)", type(error).__name__, error)
        return images


def _read(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """All of them at once: the device is waited for once."""
    return dict(zip(tensors, torch.stack([*tensors.values()]).tolist(), strict=True)) if tensors else {}


def _for_wandb(histograms: dict[str, Histogram]) -> dict[str, Any]:
    import wandb

    return {
        name: wandb.Histogram(np_histogram=(np.array(counts), np.linspace(low, high, len(counts) + 1)))
        for name, (low, high, counts) in histograms.items()
    }


def none(**unused: Any) -> None:
    """No monitor: history.csv has the losses and accuracies anyway."""
