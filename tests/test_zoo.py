"""Every convolution learns in one epoch, and stopped on the way it ends with the same numbers."""

import random
import signal

import pytest

from cnnlab import available
from cnnlab.history import History
from tests import isolated
from tests.test_resume import folder_of, same_numbers, train

QUICK = ["model.filters=[8]", "epochs=1", "threads=1", "logger=none", "trainer.log_every_n_steps=1"]
STEPS = 21  # of 64 images


@pytest.mark.parametrize("word", available("conv"))
def test_a_convolution_learns_in_one_epoch_and_resumes_exactly(word, tmp_path):
    whole, stopped = (
        [*QUICK, f"conv={word}", f"output_dir={tmp_path / name}"] for name in ("whole", "stopped")
    )
    result = isolated.run(train, whole)
    assert result.status == "done", result.error
    rows = History(folder_of(whole) / "history.csv").rows()
    first = next(row["train/loss_step"] for row in rows if "train/loss_step" in row)
    assert result.metrics["val/loss"] < first

    with pytest.raises(isolated.Ended):  # SIGTERM has it save in mid-epoch
        isolated.run(train, stopped, (random.Random(word).randrange(STEPS - 1), signal.SIGTERM))
    assert (folder_of(stopped) / "checkpoints" / "last.ckpt").exists()
    assert isolated.run(train, stopped).status == "done"
    same_numbers(folder_of(whole), folder_of(stopped))
