"""Coarse to fine: many short trials of the whole space, then longer ones of what was best in it."""

from collections.abc import Sequence
from pathlib import Path

from cnnlab.report.table import say
from cnnlab.search.space import Space
from cnnlab.search.study import Study
from cnnlab.search.trials import Trials
from cnnlab.search.values import shown

QUARTER, AT_LEAST = 4, 3  # the best quarter of the trials spans the next stage, at least three


def coarse_to_fine(trials: Trials, space: Space, stages: Sequence[int], journal: Path) -> Study:
    """Run a study for each number of epochs; each but the first begins with the best of the one before.

    The last study is returned, or the first that no trial came out of.
    """
    best: dict[str, object] = {}
    for stage, (epochs, n_trials) in enumerate(zip(stages, trials.settings.trials, strict=True), start=1):
        here = space.at_epochs(epochs) if stage < len(stages) else space
        identity = trials.composer.one(here.shared).id
        study = Study(journal, identity, here, trials.settings, n_trials)
        if best:
            study.begin_with(best)
        if len(stages) > 1:
            ranges = "; ".join(f"{key}: {shown(values)}" for key, values in space.searched.items())
            say(f"Stage {stage} of {len(stages)}, epochs={epochs}; {ranges}")
        trials.conduct(study)
        chosen = [trial.params for trial in study.complete]
        if not chosen:
            break
        best = space.typed(chosen[0])
        space = space.narrowed(chosen[: max(AT_LEAST, len(chosen) // QUARTER)])
    return study
