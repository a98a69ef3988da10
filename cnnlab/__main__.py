"""The command `cnnlab`: verb -> function, error -> exit code. Nothing heavy is imported before a run."""

import os
import sys

from cnnlab.allowed import RequestError


def train(arguments: list[str]) -> int:
    """Train a run, or with -m a sweep."""
    from cnnlab.verbs.launch import launch

    return launch(arguments, verbs=list(VERBS))


def list_words(arguments: list[str]) -> int:
    """Show the groups, or the words of a group with their knobs."""
    from cnnlab.verbs.listing import main

    return main(arguments)


def show(arguments: list[str]) -> int:
    """Draw images as the network sees them."""
    from cnnlab.verbs.show import main

    return main(arguments)


def check(arguments: list[str]) -> int:
    """Check a configuration before it is trained."""
    from cnnlab.check.command import main

    return main(arguments)


def bench(arguments: list[str]) -> int:
    """Measure what convolutions cost."""
    from cnnlab.bench.command import main

    return main(arguments)


def report(arguments: list[str]) -> int:
    """Compare runs: tables, and one HTML page."""
    from cnnlab.report.command import main

    return main(arguments)


def evaluate(arguments: list[str]) -> int:
    """Compute a run's metrics again and compare them with its record."""
    from cnnlab.verbs.evaluate import main

    return main(arguments)


def diff(arguments: list[str]) -> int:
    """Tell in what two runs differ."""
    from cnnlab.verbs.diff import main

    return main(arguments)


def repro(arguments: list[str]) -> int:
    """Print the commit, the packages and the command that give a run again."""
    from cnnlab.verbs.repro import main

    return main(arguments)


VERBS = {
    "train": train,
    "list": list_words,
    "show": show,
    "check": check,
    "bench": bench,
    "report": report,
    "evaluate": evaluate,
    "diff": diff,
    "repro": repro,
}


def command(arguments: list[str]) -> int:
    """Run a command line; returns the exit code."""
    verb, rest = "train", arguments
    if arguments and arguments[0] in VERBS:
        verb, *rest = arguments
    try:
        return VERBS[verb](rest)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main() -> None:
    """Entry point of the console script."""
    sys.path.append("")  # the current folder, for your own classes; last, so that it hides no library
    sys.exit(command(sys.argv[1:]))


if __name__ == "__main__":
    main()
