"""Classification: scores, loss plus penalties, accuracy."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from cnnlab import conv
from cnnlab.dropconnect import dropconnect
from cnnlab.match import Match
from cnnlab.momentum import Constant
from cnnlab.optimizer import is_full_batch, one_function
from cnnlab.parallel import distributed
from cnnlab.regularizer import Penalties
from cnnlab.schedule import Plateau

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W) in the data set's own scale, targets (N, ...)


class Classify(pl.LightningModule):
    """Classify images by a network: augmentation (training only) -> preprocessing -> net -> loss + penalties.

    The module is whole: it takes images as the data set has them (uint8, or float of the same scale), so that
    anyone's Trainer can fit, test and predict with it. `train/loss` and `val/loss` are the loss without
    penalties, so that runs of different regularisation can be compared.

    Tasks of other targets differ in what they measure: `judged`, and the metric's name.

    Shape: (N, C, H, W) -> scores (N, outputs), as many as the loss asks for: one a class.
    """

    metric = "accuracy"

    def __init__(
        self,
        net: nn.Module,
        *,
        input_shape: tuple[int, int, int],
        classes: int,
        width: float | None = None,
        targets: str = "class",
        structure: dict[str, Any] | None = None,
        match: Match | None = None,
        loss: nn.Module,
        regularizer: Penalties,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        momentum: Constant,
        preprocessing: nn.Module,
        augmentation: nn.Module,
    ) -> None:
        super().__init__()
        # Plain containers only: a checkpoint must load with weights_only=True.
        self.save_hyperparameters(
            {
                "input_shape": list(input_shape),
                "classes": classes,
                "width": width,
                "targets": targets,
                "structure": structure,
            },
            logger=False,
        )
        self.match = match  # what the width was chosen for
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss, self.regularizer = loss, regularizer
        self.preprocessing, self.augmentation = preprocessing, augmentation
        self.optimizer, self.schedule, self.momentum = optimizer, schedule, momentum
        self.convs: dict[str, Any] = conv.layers(net)
        self.projected: list[Any] = [c for c in self.convs.values() if getattr(c, "projection_every", 0)]
        self.steps_per_epoch: int | None = None  # set where known; else the Trainer is asked
        self.step_loss = torch.tensor(torch.nan)  # of the last training batch
        self.sums: dict[str, Tensor] = {}  # stage -> (loss * n, metric * n, n), kept on the device

    def on(self, net: nn.Module) -> "Classify":
        """The same task with another network."""
        return type(self)(
            net,
            **self.hparams,
            loss=copy.deepcopy(self.loss),  # what it learns of the other network is not kept
            regularizer=self.regularizer,
            optimizer=self.optimizer,
            schedule=self.schedule,
            momentum=self.momentum,
            preprocessing=self.preprocessing,
            augmentation=self.augmentation,
        )

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.preprocessing(images).to(self.dtype, memory_format=torch.channels_last)
        return dropconnect(self.net, pixels, self.regularizer.dropconnect)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = self._measure("train", self.augmentation(images), labels)
        self.step_loss = loss.detach()
        return loss + self.regularizer(self.net)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure("val", *batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure("test", *batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Scores (N, outputs)."""
        return self(batch if isinstance(batch, Tensor) else batch[0])

    def _measure(self, stage: str, images: Tensor, labels: Tensor) -> Tensor:
        """The batch's mean loss; its sums are added up on the device, so that no step waits for it."""
        scores = distributed.whole(self(distributed.part(images)), len(images))
        loss = self.loss(scores, labels)
        with torch.no_grad():
            count = torch.full_like(loss, len(labels), dtype=torch.float32)  # bf16 counts to 256
            sums = torch.stack([loss * count, self.judged(scores, labels).sum().to(count), count])
            self.sums[stage] = self.sums[stage].to(sums) + sums if stage in self.sums else sums
        return loss

    def judged(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Of each image, what the metric is the mean of: whether its class scores highest."""
        if hasattr(self.loss, "class_scores"):
            scores = self.loss.class_scores(scores)  # type: ignore[operator]
        return scores.argmax(1) == targets

    def means(self, stage: str) -> dict[str, Tensor]:
        """The stage's mean loss and metric since its last call."""
        loss, judged, count = self.sums.pop(stage)
        return {f"{stage}/loss": loss / count, f"{stage}/{self.metric}": judged / count}

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.means("train") | self.constraints())

    def on_validation_epoch_end(self) -> None:
        metrics = self.means("val")
        self.log_dict(metrics, prog_bar=True)
        trains = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking
        if trains and isinstance(schedule := self.lr_schedulers(), Plateau):
            schedule.validated(metrics["val/loss"])

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.means("test"))

    @torch.no_grad()
    def constraints(self) -> dict[str, Tensor]:
        """The orthogonality loss, unweighted, and how far the convolutions are from what they promise."""
        metrics = {"ortho/loss": self.regularizer.orthogonality_of(self.net)}
        floor = self.regularizer.orthogonality_floor_of(self.net)
        if floor > 0:
            metrics["ortho/floor"] = torch.as_tensor(floor)
        violations = [layer.violation() for layer in self.convs.values() if hasattr(layer, "violation")]
        if violations:
            metrics["conv/violation"] = torch.stack([torch.as_tensor(v) for v in violations]).max()
        return metrics

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        if is_full_batch(optimizer):  # it reads gradients as flat vectors
            self.net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        epochs = max(1, self.trainer.max_epochs or 1)  # -1 where a Trainer counts steps alone
        per_epoch = self.steps_per_epoch
        if per_epoch is None:
            steps = self.trainer.estimated_stepping_batches  # inf where nothing but time ends the training
            self.steps = max(1, int(steps)) if math.isfinite(steps) else epochs
            per_epoch = max(1, self.steps // epochs)
        else:
            self.steps = epochs * per_epoch
        if self.trainer.max_steps > 0:
            self.steps = min(self.steps, self.trainer.max_steps)
        schedule = self.schedule(optimizer, steps=self.steps, steps_per_epoch=per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        self.momentum(optimizer, self.global_step / self.steps)
        if is_full_batch(optimizer):
            optimizer_closure = one_function(optimizer_closure, self)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        step = self.global_step + 1  # Lightning counts it once this returns
        for layer in self.projected:
            if step % layer.projection_every == 0:
                layer.project()
        self.regularizer.project(self.net)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for fused optimisers under autocast; only fp16's scaler is in their way.
        if gradient_clip_val is None or getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sums"] = {stage: sums.tolist() for stage, sums in self.sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sums = {
            stage: torch.tensor(sums, dtype=torch.float64)
            for stage, sums in checkpoint.get("sums", {}).items()
        }
