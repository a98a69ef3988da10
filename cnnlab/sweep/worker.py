"""What a job does in its own process: train, and answer with a result, whatever happens."""

import traceback
from collections.abc import Callable
from dataclasses import replace

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.folder import Taken, failed
from cnnlab.quiet import quiet_libraries
from cnnlab.result import Result
from cnnlab.signals import Interrupted

STEPS = 20  # that tell what a run would take


def attempt(config: Config, task: Callable[[Config], Result]) -> Result:
    """The result of a task; what it raises becomes one."""
    quiet_libraries()
    try:
        return task(config)
    except (Interrupted, KeyboardInterrupt) as error:
        left = Result.read(config.folder)
        if left is None or left.status != "interrupted":  # too early, so what is there is of an older attempt
            left = Result.of(config, status="interrupted", error=str(error) or "stopped by SIGINT")
        return left
    except Taken as error:
        return Result.of(config, status="elsewhere", error=str(error))
    except RequestError as error:
        return Result.of(config, status="refused", error=str(error))
    except (Exception, SystemExit) as error:
        return failed(config, f"{type(error).__name__}: {error}", traceback.format_exc())


def train(config: Config) -> Result:
    """A whole run alone on the machine."""
    from cnnlab.train import train

    return train(config)


def train_beside_others(config: Config) -> Result:
    """A whole run whose times other jobs disturb."""
    from cnnlab.train import train

    return train(config, shared=True)


def measure(config: Config) -> Result:
    """What a whole run would take, by its first `STEPS` steps: `wall_s` is the expectation."""
    from cnnlab.build import build_data
    from cnnlab.train import train

    tree = config.tree
    asked = tree["trainer"].get("max_steps", -1)
    trainer = tree["trainer"] | {"max_steps": STEPS if asked == -1 else min(STEPS, asked)}
    result = train(replace(config, tree=tree | {"epochs": 1, "trainer": trainer}))
    if result.images_per_s:
        sizes = build_data(config).sizes
        images = tree["epochs"] * sizes["train"]
        if asked != -1:
            images = min(images, asked * tree["batch_size"])
        # Validation goes forward only, which is a third of the work.
        result.wall_s = images * (1 + sizes["val"] / sizes["train"] / 3) / result.images_per_s
    return result
