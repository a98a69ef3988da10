"""What others wrote may hold anything: control characters, halves of characters."""


def printable(text: str) -> str:
    r"""The text with everything replaced that neither a terminal nor a file should be given.

    >>> printable("red\x1b[31m, half \ud800, a\nb")
    'red�[31m, half �, a\nb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
