"""Results as a Markdown table with the command behind each row; `python -m cnnlab.report.markdown DIR FILE`.

In FILE, what stands between `<!-- results -->` and `<!-- /results -->` is replaced by the table of the runs
in DIR.
"""

import shlex
import sys
from pathlib import Path

from cnnlab.report.table import number
from cnnlab.result import Result

BEGIN, END = "<!-- results -->\n", "<!-- /results -->"


def table(results: list[Result]) -> str:
    """One row a run: its accuracies, orthogonality loss and speed, then the commands, one a row.

    >>> print(table([Result("0" * 10, "default", overrides=["conv=fft"], metrics={"test/accuracy": 0.5})]))
    | | test accuracy | val accuracy | orthogonality loss | images/s |
    |---|---|---|---|---|
    | 1 | 0.5000 | - | - | - |
    <BLANKLINE>
        cnnlab conv=fft  # 1
    <BLANKLINE>
    """
    lines = ["| | test accuracy | val accuracy | orthogonality loss | images/s |", "|---|---|---|---|---|"]
    for index, result in enumerate(results, 1):
        values = [result.metrics.get(name) for name in ("test/accuracy", "val/accuracy", "ortho/loss")]
        cells = ["-" if value is None else number(value) for value in (*values, result.images_per_s)]
        lines.append(f"| {index} | {' | '.join(cells)} |")
    commands = [f"    cnnlab {shlex.join(r.overrides)}  # {i}" for i, r in enumerate(results, 1)]
    return "\n".join([*lines, "", *commands, ""])


def replace(page: str, content: str) -> str:
    """The page with new content between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{content}{END}{after}"


def main(folder: str, page: str) -> None:
    found = (Result.read(path.parent) for path in sorted(Path(folder).rglob("result.json")))
    content = table([result for result in found if result is not None])
    Path(page).write_text(replace(Path(page).read_text(), content))


if __name__ == "__main__":
    main(*sys.argv[1:])
