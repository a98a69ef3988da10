"""The verb `train`: judge the whole command line, hand it to Hydra's launcher, show what came out."""

import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cnnlab.allowed import RequestError, did_you_mean
from cnnlab.compose import Composer
from cnnlab.registry import CONF
from cnnlab.signals import Interrupted

if TYPE_CHECKING:
    from cnnlab.config import Config
    from cnnlab.result import Result


def launch(arguments: list[str], verbs: list[str]) -> int:
    """Run what the arguments of `cnnlab [train]` ask for; returns the exit code."""
    if {"-sc", "--shell-completion"} & set(arguments):
        os.environ["COMP_LINE"] = without_verb(os.environ.get("COMP_LINE", ""), verbs)
        return through_hydra(arguments)
    flags = parsed(arguments)
    if flags.help:
        from cnnlab.usage import usage

        print(usage())
        return 0
    if flags.hydra_help:
        return through_hydra(arguments)
    for line in flags.overrides:
        if "=" not in line and not line.startswith("~"):
            raise RequestError(f"{line}: neither a verb nor KEY=VALUE{did_you_mean(line, verbs)}")
    composer = Composer(flags.config_dir, flags.config_name or "config", flags.config_path)
    configs = composer.sweep(flags.overrides) if flags.multirun else [composer.one(flags.overrides)]
    spelled = dict(zip(flags.overrides, composer.for_hydra(flags.overrides), strict=True))
    arguments = [spelled.get(argument, argument) for argument in arguments]
    if flags.cfg or flags.info:
        return through_hydra(arguments)
    return run(arguments, composer, jobs=len(configs))


def run(arguments: list[str], composer: Composer, jobs: int) -> int:
    """Train each configuration that Hydra's launcher hands out; the worst of their exit codes."""
    from hydra.core.hydra_config import HydraConfig

    from cnnlab.report import table

    quiet_libraries()
    codes: list[int] = []
    results: list[Result] = []

    def job(cfg: Any) -> None:
        config = composer.one(HydraConfig.get().overrides.task)
        if jobs > 1:
            table.say(f"[{len(codes) + 1}/{jobs}] {config.summary}")
        try:
            result = result_of(config)
        except RequestError as error:
            if jobs == 1:
                raise
            print(error, file=sys.stderr)
            codes.append(2)
            return
        results.append(result)
        codes.append(0 if result.status == "done" else 1)
        if jobs == 1 or result.status != "done":
            table.show(result, config.folder)

    try:
        codes.append(through_hydra(arguments, job))
    except Interrupted as interrupted:
        print(f"{interrupted}; asked for again (without resume=false) it goes on", file=sys.stderr)
        codes.append(interrupted.exit_code)
    if jobs > 1:
        table.compare(results, jobs)
    return max(codes)


def result_of(config: "Config") -> "Result":
    """The configuration's result: found if it is done, else trained."""
    from cnnlab.folder import finished
    from cnnlab.report import table

    if (done := finished(config)) is not None:
        table.say_done(done, config)
        return done
    from cnnlab.train import train

    return train(config)


def through_hydra(arguments: list[str], job: Callable[[Any], None] = lambda cfg: None) -> int:
    """Give a command line to hydra.main; what it still finds wrong is a RequestError."""
    import hydra

    set_by_user = os.environ.get("HYDRA_FULL_ERROR")
    errors: list[Exception] = []

    def task(cfg: Any) -> None:
        restore()
        try:
            job(cfg)
        except Exception as error:  # Hydra would announce it in lines of its own
            errors.append(error)
        os.environ["HYDRA_FULL_ERROR"] = "1"

    def restore() -> None:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if set_by_user is not None:
            os.environ["HYDRA_FULL_ERROR"] = set_by_user

    before = sys.argv
    sys.argv = ["cnnlab", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise RequestError(" ".join(str(error).split())) from error
    except OSError as error:  # the sweep's folder
        raise RequestError(f"output_dir: {error.filename}: {error.strerror}") from error
    finally:
        sys.argv = before
        restore()
    if errors:
        raise errors[0]
    return 0


def parsed(arguments: list[str]) -> Namespace:
    """Hydra's flags and the override lines."""
    import cnnlab

    parser = get_args_parser()
    parser.__class__ = _OneLineParser
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"cnnlab {cnnlab.__version__}"  # type: ignore[attr-defined]
    return parser.parse_intermixed_args(arguments)


class _OneLineParser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(message)


def without_verb(line: str, verbs: list[str]) -> str:
    """A command line as Hydra's completion understands it.

    >>> without_verb("cnnlab train conv=dec", ["train", "list"])
    'cnnlab conv=dec'
    """
    program, _, rest = line.partition(" ")
    verb, space, overrides = rest.lstrip().partition(" ")
    return f"{program} {overrides}" if verb in verbs and space else line


def quiet_libraries() -> None:
    """cnnlab's own warnings go to the terminal; what libraries say goes to the run's log.txt alone."""
    logging.captureWarnings(True)
    logging.getLogger().addHandler(
        logging.NullHandler()
    )  # else Lightning, once imported, adds one that prints
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).handlers.clear()
        logging.getLogger(library).propagate = True
    ours = logging.getLogger("cnnlab")
    ours.setLevel(logging.DEBUG)
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(terminal)
