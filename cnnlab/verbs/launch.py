"""The verb `train`: judge the whole command line, run what it asks for, show what came out."""

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cnnlab.allowed import RequestError, did_you_mean
from cnnlab.compose import Composer
from cnnlab.quiet import quiet_libraries
from cnnlab.registry import CONF
from cnnlab.signals import Interrupted
from cnnlab.terminal import warn_on_terminal
from cnnlab.verbs.parser import Parser

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
        from cnnlab.verbs.usage import usage

        print(usage())
        return 0
    if flags.hydra_help:
        return through_hydra(arguments)
    if flags.experimental_rerun:
        raise RequestError("--experimental-rerun: not needed, the same command is the same run")
    for line in flags.overrides:
        if "=" not in line and not line.startswith("~"):
            raise RequestError(f"{line}: neither a verb nor KEY=VALUE{did_you_mean(line, verbs)}")
    composer = Composer(flags.config_dir, flags.config_name or "config", flags.config_path)
    if flags.cfg or flags.info:
        spelled = dict(zip(flags.overrides, composer.for_hydra(flags.overrides), strict=True))
        composer.sweep(flags.overrides) if flags.multirun else composer.one(flags.overrides)
        return through_hydra([spelled.get(argument, argument) for argument in arguments])
    for line in flags.overrides:
        if line.lstrip("+").startswith(("hydra.", "hydra/")) and not flags.multirun:
            raise RequestError(f"{line}: Hydra's own keys say how a sweep runs, which needs -m")
    try:
        if not (flags.multirun or flags.dry_run):
            return run(composer.one(flags.overrides))
        from cnnlab.sweep import command

        if flags.dry_run:
            return command.dry_run(composer, flags.overrides, flags.multirun)
        return command.sweep(composer, flags.overrides)
    except Interrupted as interrupted:
        print(f"{interrupted}; asked for again (without resume=false) it goes on", file=sys.stderr)
        return interrupted.exit_code


def run(config: "Config") -> int:
    """Train one configuration in this process; returns the exit code."""
    from cnnlab.report import table

    quiet_libraries()
    warn_on_terminal()
    result = result_of(config)
    table.show(result, config.folder)
    return 0 if result.status == "done" else 1


def result_of(config: "Config") -> "Result":
    """The configuration's result: found if it is done, else trained."""
    from cnnlab.folder import finished
    from cnnlab.report import table

    if (done := finished(config)) is not None:
        table.say_done(done, config)
        return done
    from cnnlab.train import train

    return train(config)


def through_hydra(arguments: list[str]) -> int:
    """What Hydra's own flags show; what it finds wrong is a RequestError."""
    import hydra

    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["cnnlab", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(lambda cfg: None)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise RequestError(" ".join(str(error).split())) from error
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return 0


def parsed(arguments: list[str]) -> Namespace:
    """Hydra's flags and the override lines."""
    import cnnlab

    parser = get_args_parser()
    parser.__class__ = Parser
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"cnnlab {cnnlab.__version__}"  # type: ignore[attr-defined]
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_intermixed_args(arguments)


def without_verb(line: str, verbs: list[str]) -> str:
    """A command line as Hydra's completion understands it.

    >>> without_verb("cnnlab train conv=dec", ["train", "list"])
    'cnnlab conv=dec'
    """
    program, _, rest = line.partition(" ")
    verb, space, overrides = rest.lstrip().partition(" ")
    return f"{program} {overrides}" if verb in verbs and space else line
