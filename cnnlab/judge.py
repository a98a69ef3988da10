"""What keys may be: judged on the composed configuration, before torch is imported."""

import functools
from collections.abc import Callable
from typing import Any

from cnnlab.allowed import RequestError, number, one_of, text, truth, whole
from cnnlab.config import Config, flatten, shown
from cnnlab.registry import TRUSTED, is_trusted


def folder_name(key: str, value: Any) -> str:
    if "/" in text(key, value) or value.startswith("."):
        raise ValueError(f"{key} must be the name of a folder in output_dir, got {value!r}")
    return value


def packages(key: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list of words, [PACKAGE], got {value!r}")
    return [text(key, item) for item in value]


def one_device(key: str, value: Any) -> Any:
    if value != 1:
        raise ValueError(f"{key} must be 1, got {value!r}; trainer=ddp trains on several")
    return value


def devices(key: str, value: Any) -> Any:
    return value if value == "auto" else whole(key, value, at_least=1)


# What a key may be, where no constructor of ours says so.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "name": folder_name,
    "seed": functools.partial(whole, at_least=0, at_most=2**63 - 1),
    "epochs": functools.partial(whole, at_least=1),
    "batch_size": functools.partial(whole, at_least=1),
    "ortho_weight": functools.partial(number, at_least=0),
    "match": lambda key, value: value is None or one_of(key, value, ["params", "macs"]),
    "activation.first_layers": lambda key, value: value is None or whole(key, value, at_least=0),
    "threads": lambda key, value: value is None or whole(key, value, at_least=1),
    "output_dir": text,
    "resume": truth,
    "trusted": packages,
    "sweep.retry_failed": truth,
    "optimizer.lr": functools.partial(number, above=0),
    "dataset.split_seed": functools.partial(whole, at_least=0),
    "dataset.folds": lambda key, value: value is None or whole(key, value, at_least=2),
    "dataset.fold": functools.partial(whole, at_least=0),
    "trainer.num_nodes": functools.partial(one_of, words=[1]),
    "trainer.max_steps": lambda key, value: value == -1 or whole(key, value, at_least=1),
    "trainer.limit_train_batches": functools.partial(number, above=0),
    "trainer.accumulate_grad_batches": functools.partial(whole, at_least=1),
    "trainer.check_val_every_n_epoch": functools.partial(whole, at_least=1),
    "trainer.gradient_clip_val": lambda key, value: value is None or number(key, value, above=0),
    "trainer.log_every_n_steps": functools.partial(whole, at_least=0),
}

# Trainer arguments that cnnlab sets itself, and what to say instead.
RESERVED = {
    "trainer.max_epochs": "epochs=N says how long to train",
    "trainer.logger": "logger=WORD says where to log",
    "trainer.default_root_dir": "output_dir=DIR says where runs are kept",
    "trainer.callbacks": "cnnlab sets the callbacks",
    "trainer.enable_checkpointing": "every run keeps checkpoints/{last,best}.ckpt",
    "trainer.val_check_interval": "validation ends an epoch; trainer.check_val_every_n_epoch=N is rarer",
    "trainer.fast_dev_run": "epochs=1 trainer.max_steps=1 is a quick try",
    "trainer.barebones": "it would leave no record",
}


def judge(config: Config) -> None:
    """Refuse what no run could be made of, before torch is imported."""
    flat = flatten(config.tree)
    several = flat.get("trainer.strategy") == "ddp"
    for key, check in (CHECKS | {"trainer.devices": devices if several else one_device}).items():
        if key not in flat:
            continue
        try:
            check(key, flat[key])
        except ValueError as error:
            group, _, knob = key.partition(".")
            says = config.says(group, knob) if group in config.choices else f"{key}={shown(flat[key])}"
            raise RequestError(f"{says}: {str(error).removeprefix(key + ' ')}") from error
    trusted = config.tree["trusted"]
    for key, target in flat.items():
        if key.endswith("._target_") and not is_trusted(str(target), trusted):
            group, _, knob = key.partition(".")
            allowed = ", ".join((*TRUSTED, *trusted))
            raise RequestError(
                f"{config.says(group, knob)}: must be a class of {allowed}; trusted=[PACKAGE] adds to these"
            )
