"""The laws of a training step, over every word of every group: it runs on any device, and waits for none."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import default_words
from cnnlab.data.batches import Batches
from cnnlab.data.images import ImageData
from cnnlab.loss import CrossEntropyLoss
from cnnlab.registry import locate, node
from tests.meta import META, Pictures, run

KNOBS = (  # what happens in a step but by no word alone
    "ortho_weight=0.1 regularizer.l1=0.1 regularizer.l2=0.1",
    "regularizer.max_norm=1 regularizer.biases=true regularizer.dropconnect=0.5",
    "conv=grouped conv.groups=2 ortho_weight=0.1 model.dropout=0.5",
    "conv=decoupled_tanh conv.projection_every=1 conv.projection_norm=2 conv.radius=relative",
    "conv=decoupled_tanh conv.learnable_rho=true conv.weighted_gradients=true conv.angular=sigmoid",
    "conv=decoupled_tanh conv.weighting=product_tanh",
    "loss=hierarchical_softmax loss.tree=coarse",
    "loss=structured_hinge loss.decoder=independent dataset.targets=chain",
    "trainer.gradient_clip_val=1",
    "trainer.gradient_clip_val=1 trainer.gradient_clip_algorithm=value trainer.accumulate_grad_batches=2",
    "optimizer=rmsprop optimizer.momentum=0.9 optimizer.centered=true",
    "model=mlp model.dropout=0.5",
    "trainer.precision=bf16-true",
    "trainer.precision=64-true averaging=ema",
    "activation=maxout activation.first_layers=1 match=macs",
    "conv=cayley pretraining=greedy pretraining.epochs=1",
)


def words():
    """Every word of every group but those that say where a run is made."""
    groups = [group for group in default_words() if group not in ("dataset", "trainer", "logger")]
    return [f"{group}={word}" for group in groups for word in cnnlab.available(group)]


def whole(line):
    """A word's line, with what the word needs and what spares time."""
    group, word = line.split("=")
    knobs = node(group, word)
    small = [] if group == "model" else ["model.filters=[8]"]
    also = {
        "conv": ["conv.patches=500"] if "patches" in knobs else [],
        "loss": [f"dataset.targets={getattr(locate(knobs['_target_']), 'targets', None)}"],
        "model": ["dataset.side=39", *(["model.width=0.125"] if "width" in knobs else [])],
        "momentum": ["optimizer=momentum"],
        "optimizer": ["batch_size=45"] if "line_search_fn" in knobs else [],  # one step an epoch
        "pretraining": ["pretraining.epochs=1"] if "epochs" in knobs else [],
    }
    return " ".join([line, *small, *also.get(group, [])])


@pytest.fixture(scope="module")
def composer(tmp_path_factory):
    """With the data set `pictures`, and the lawbreakers."""
    folder = tmp_path_factory.mktemp("conf")
    classes = {"dataset=pictures": Pictures} | LAWBREAKERS
    for line, broken in classes.items():
        path = folder / f"{line.replace('=', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"_target_: {broken.__module__}.{broken.__qualname__}\n")
    return Composer(str(folder))


@pytest.mark.parametrize("line", [*map(whole, words()), *KNOBS])
def test_no_step_of_a_training_waits_for_the_device(line, composer, tmp_path):
    result, meta = run(composer, tmp_path, line)
    assert result.status == "done", f"{line} does not run on the meta device: {result.traceback}"
    assert meta.steps or hasattr(locate(node("model", result.choices["model"])["_target_"]), "memorize")
    assert not meta.waited_in_steps(), f"{line} waits in a step: {meta.waited_in_steps()}"


@pytest.mark.parametrize("line", ["seed=0", "monitor=layers averaging=ema schedule=plateau epochs=2"])
def test_a_run_waits_as_often_however_many_steps_an_epoch_has(line, composer, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnlab.trainer.terminal", lambda: True)  # with the progress bar
    small = f"{line} model.filters=[8]"
    few, many = (run(composer, tmp_path, f"{small} batch_size={size}")[1].waited() for size in (12, 5))
    assert few == many, f"{line} waits more often in an epoch of 9 steps than of 4: {many - few}"


@pytest.mark.parametrize("line", ["preprocessing=whiten", "conv=kmeans conv.patches=500"])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")  # of images that are all 0
def test_where_a_loss_began_is_found_on_another_device_than_the_cpu(line, composer, tmp_path):
    """With all that is fitted fitted again, on data that lie there by now."""
    result, _ = run(composer, tmp_path, f"model.filters=[8] {line}", value=float("nan"))
    assert result.error is not None
    assert result.error.startswith("the loss is nan at step 1; it began in net.features.0")


def test_batches_are_born_on_the_device_of_the_images():
    images, labels = torch.zeros(5, 1, 2, 2, device=META), torch.zeros(5, device=META, dtype=torch.int64)
    for batch in Batches(images, labels, batch_size=2, seed=0):
        assert all(tensor.is_meta for tensor in batch)


# Lawbreakers


class Reads(nn.ReLU):
    def forward(self, input):
        return super().forward(input) if input.sum() > 0 else input.abs()


class Masks(nn.ReLU):
    def forward(self, input):
        return input - input[input < 0].sum()


class Strays(nn.ReLU):
    def forward(self, input):
        return input + torch.zeros(input.shape)


class Uploads(nn.ReLU):
    def forward(self, input):
        return input * torch.tensor(2.0, device=input.device)


class Factorises(nn.ReLU):
    def forward(self, input):
        return input * torch.linalg.inv(torch.eye(2, device=input.device)).trace()


class DrawsOnTheCPU(nn.Module):
    def forward(self, images):
        return images + torch.randint(2, (len(images), 1, 1, 1)).to(images)


class Counts(CrossEntropyLoss):
    def forward(self, scores, targets):
        return super().forward(scores, targets) / targets.unique().numel()


class LooksAtWeights(pl.Callback):
    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.seen = [parameter.norm().tolist() for parameter in task.parameters()]


class LooksAtLosses(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        self.seen = float(loss)
        return loss


LAWBREAKERS = {
    "activation=reads": Reads,
    "activation=masks": Masks,
    "activation=strays": Strays,
    "activation=uploads": Uploads,
    "activation=factorises": Factorises,
    "augmentation=draws_on_the_cpu": DrawsOnTheCPU,
    "loss=counts": Counts,
    "averaging=looks_at_weights": LooksAtWeights,
    "optimizer=looks_at_losses": LooksAtLosses,
}


@pytest.mark.parametrize("line", LAWBREAKERS)
def test_a_lawbreaker_is_caught_and_named(line, composer, tmp_path):
    with pytest.raises(AssertionError, match=f"^{line} (waits in a step|does not run on the meta device)"):
        test_no_step_of_a_training_waits_for_the_device(line, composer, tmp_path)


def test_who_waits_once_a_step_is_caught_by_the_law_of_epochs_too(composer, tmp_path, monkeypatch):
    with pytest.raises(AssertionError, match=r"^averaging=looks_at_weights waits more often"):
        test_a_run_waits_as_often_however_many_steps_an_epoch_has(
            "averaging=looks_at_weights", composer, tmp_path, monkeypatch
        )


def test_batches_that_are_moved_one_by_one_are_caught(composer, tmp_path, monkeypatch):
    def moved(batches):
        for index in batches.order().split(batches.batch_size):
            index = index.to(batches.images.device)
            yield batches.images.index_select(0, index), batches.labels.index_select(0, index)

    monkeypatch.setattr(Batches, "__iter__", moved)
    with pytest.raises(AssertionError, match=r"^seed=0 waits in a step.*index = index.to"):
        test_no_step_of_a_training_waits_for_the_device("seed=0", composer, tmp_path)


def test_what_is_fitted_again_on_data_of_another_device_is_caught(composer, tmp_path, monkeypatch):
    move = ImageData.move
    monkeypatch.setattr(ImageData, "move", lambda data, device: device == META and move(data, device))
    with pytest.raises(RequestError, match=r"^preprocessing=standardize: "):
        test_where_a_loss_began_is_found_on_another_device_than_the_cpu("seed=0", composer, tmp_path)
