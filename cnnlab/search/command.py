"""`cnnlab -m hydra/sweeper=search`: what the command line asks for, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.report.table import console
from cnnlab.search.settings import settings_of

if TYPE_CHECKING:  # Optuna may not be installed
    from cnnlab.search.trials import Train


def search(
    composer: Composer,
    lines: Sequence[str],
    sweeper: Mapping[str, Any],
    train: "Train",
    at_a_time: Callable[[Config], int],
) -> int:
    """Search what the lines leave open; the exit code.

    `sweeper` is Hydra's node of that name; `train` trains configurations and returns their results;
    `at_a_time` tells how many like one it takes at once.

    Raises:
        RequestError: the space or the settings are wrong, or constructors refuse every run.
    """
    settings = settings_of(sweeper)
    from cnnlab.search import summary
    from cnnlab.search.space import space_of
    from cnnlab.search.stages import coarse_to_fine
    from cnnlab.search.trials import Trials

    space = space_of(composer, [line for line in lines if not line.startswith("hydra")])
    first = composer.one(space.lines(space.first))
    tree = first.tree
    stages = [*settings.stages, tree["epochs"]]
    if settings.stages and ("epochs" in space.searched or stages[-2] >= stages[-1]):
        raise RequestError(
            f"hydra.sweeper.stages={list(settings.stages)}: must be fewer epochs than epochs={stages[-1]}, "
            "which cannot be searched then"
        )
    journal = Path(tree["output_dir"], tree["name"], "search.journal")
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.touch()
    except OSError as error:
        raise RequestError(f"output_dir={tree['output_dir']}: {error.strerror}") from error
    trials = Trials(composer, settings, train, at_a_time(first))
    study = coarse_to_fine(trials, space, stages, journal)
    if study.complete:
        summary.show(study, range(tree["seed"], tree["seed"] + settings.seeds))
    for failure in trials.failures:
        console.print(failure, style="red", soft_wrap=True, markup=False)
    return 0 if study.complete and not trials.failures else 1
