"""The arguments of a verb."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from cnnlab.allowed import RequestError


class Parser(argparse.ArgumentParser):
    """Parses what follows a verb; a mistake in it is a RequestError of one line that names the verb.

    >>> parser = Parser("diff", "Tell in what two runs differ.")
    >>> parser.parse_args(["--help"]).help
    True
    >>> parser.parse_args(["--hlep"])
    Traceback (most recent call last):
    cnnlab.allowed.RequestError: diff: unrecognized arguments: --hlep
    """

    verb = ""  # train's is not typed

    def __init__(self, verb: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            f"cnnlab {verb}",
            description=description,
            epilog=epilog,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.verb = verb
        self.add_argument("--help", "-h", action="store_true", help="show this and leave")

    def asked(self, arguments: Sequence[str]) -> argparse.Namespace | None:
        """What the arguments ask for; None if that is help, which is then shown."""
        asked = self.parse_intermixed_args(arguments)
        if not asked.help:
            return asked
        self.print_help()
        return None

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{self.verb}: {message}" if self.verb else message)
