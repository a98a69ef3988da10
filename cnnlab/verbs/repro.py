"""`cnnlab repro RUN`: the commit, the packages and the command that give a run again."""

import math
import shlex
from collections.abc import Iterator, Sequence

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import flatten, is_essential, shown
from cnnlab.runs.recorded import Run, RunParser, find
from cnnlab.verbs.diff import unequal

HELP = """\
Print the commit, the packages and the command that give a run again, as lines
for a shell in a clone of cnnlab. A RUN is its folder, or the first digits of
its id.

Exit code: 0 the command gives the run's configuration in this version of
cnnlab too; 1 only the run's own version does; 2 there is no such run.
"""

TORCH_BUILDS = "https://download.pytorch.org/whl"  # by device, /cpu or /cu128; PyPI has one of them


def main(arguments: Sequence[str]) -> int:
    """Print what the arguments of `cnnlab repro` ask for; returns the exit code."""
    parser = RunParser("repro", HELP)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="the YAML files that the run had")
    if (asked := parser.asked(arguments)) is None:
        return 0
    if len(asked.runs) != 1:
        raise RequestError(f"repro: takes one RUN, got {len(asked.runs)}")
    run, composer = find(asked.runs[0], asked.output_dir), Composer(asked.config_dir)
    for line in setting(run):
        print(line)
    overrides, code = as_asked(run), 0
    if (amiss := difference(run, overrides, composer)) is not None:
        print(comment(f"in this version of cnnlab the run's own words give another configuration: {amiss}"))
        in_full = spelled_out(run, composer)
        if (still := difference(run, in_full, composer)) is None:
            overrides = in_full
        else:
            print(comment(f"and no command gives that one ({still}): check the commit out first"))
            code = 1
    if run.config.id != run.result.id:
        print(comment(f"this version of cnnlab calls that configuration {run.config.id}"))
    print(comment("where the run's folder is, this shows it; resume=false runs it afresh"))
    config_dir = [] if asked.config_dir is None else ["--config-dir", asked.config_dir]
    print(shlex.join(["cnnlab", *config_dir, *overrides]))
    return code


def setting(run: Run) -> Iterator[str]:
    """The commit and the packages of a run."""
    result, versions = run.result, dict(run.result.versions)
    made = f"{result.device}, precision {result.precision}, threads {result.threads}"
    yield comment(f"{run.folder}: {result.status}, started {result.started}, on {made}")
    python, cnnlab = versions.pop("python", "?"), versions.pop("cnnlab", "?")
    if result.git is None:
        yield comment(f"cnnlab {cnnlab}; its commit is not known")
    else:
        yield f"git checkout {shlex.quote(result.git.removesuffix('+'))}"
    if (result.git or "").endswith("+"):
        yield comment("the sources had changes that this commit does not have")
    yield comment(f"Python {python}")
    _, _, build = versions.get("torch", "").partition("+")
    index = ["--extra-index-url", f"{TORCH_BUILDS}/{build}"] if build else []
    yield shlex.join(
        ["pip", "install", *index, *(f"{name}=={version}" for name, version in versions.items())]
    )


def as_asked(run: Run) -> list[str]:
    """The run's own override lines; the threads, which change bits, as it had them."""
    lines = [line.lstrip("+") for line in run.result.overrides]
    lines = [line for line in lines if not line.startswith(("hydra", "threads=", "resume="))]
    return lines if run.result.threads is None else [*lines, f"threads={run.result.threads}"]


def spelled_out(run: Run, composer: Composer) -> list[str]:
    """Every word of a run, and every value that is not the one these words have today."""
    tree = run.config.tree | {"resume": True}
    words = {group: word for group, word in run.config.choices.items() if group != "experiment"}
    if tree.get("ortho_weight") == math.inf:
        words["conv"] = "standard"  # which that makes orthogonal
    lines = [f"{group}={word}" for group, word in words.items() if word in composer.words.get(group, ())]
    frozen = flatten(tree) | {"threads": run.result.threads}
    today = flatten(composer.one([*lines, f"trusted={shown(tree.get('trusted', []))}"]).tree)
    return lines + [
        f"{key}={shown(frozen[key])}" for key in unequal(today | {"trusted": []}, frozen) if key in frozen
    ]


def difference(run: Run, lines: Sequence[str], composer: Composer) -> str | None:
    """In what the configuration of these lines is not the run's; None where it is the same."""
    try:
        config = composer.one(lines)
    except RequestError as error:
        return str(error)
    if config.id == run.config.id:
        return None
    changed = unequal(flatten(run.config.tree), flatten(config.tree))
    told = (
        f"{key} {shown(then)} -> {shown(now)}" for key, (then, now) in changed.items() if is_essential(key)
    )
    return ", ".join(told)


def comment(text: str) -> str:
    return f"# {' '.join(text.split())}"
