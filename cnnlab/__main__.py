"""The command `cnnlab`: verb -> function, error -> exit code. Nothing heavy is imported before a run."""

import os
import sys

from cnnlab.allowed import RequestError


def train(arguments: list[str]) -> int:
    """Train a run, or with -m a sweep."""
    from cnnlab.launch import launch

    return launch(arguments, verbs=list(VERBS))


def list_words(arguments: list[str]) -> int:
    """Show the groups, or the words of a group with their knobs."""
    from cnnlab.listing import main

    return main(arguments)


def bench(arguments: list[str]) -> int:
    """Measure what convolutions cost."""
    from cnnlab.bench.command import main

    return main(arguments)


VERBS = {"train": train, "list": list_words, "bench": bench}


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
    sys.exit(command(sys.argv[1:]))


if __name__ == "__main__":
    main()
