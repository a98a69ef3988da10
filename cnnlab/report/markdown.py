"""Results as a Markdown table with the command behind each row; `python -m cnnlab.report.markdown DIR FILE`.

In FILE, what stands between `<!-- results -->` and `<!-- /results -->` is replaced by the table of the runs
in DIR.
"""

import shlex
import sys
from pathlib import Path

from cnnlab.config import is_essential
from cnnlab.report.table import number
from cnnlab.result import Result

BEGIN, END = "<!-- results -->\n", "<!-- /results -->"


def table(results: list[Result]) -> str:
    """One row a run: what sets it apart, its accuracies and orthogonality loss; then the commands.

    >>> lines = (["conv=fft", "epochs=2"], ["conv=im2col", "epochs=2"])
    >>> runs = [Result("0" * 10, "default", overrides=overrides) for overrides in lines]
    >>> runs[0].metrics["test/accuracy"] = 0.5
    >>> print(table(runs))
    | | test accuracy | val accuracy | orthogonality loss |
    |---|---|---|---|
    | conv=fft | 0.5000 | - | - |
    | conv=im2col | - | - | - |
    <BLANKLINE>
        cnnlab conv=fft epochs=2
        cnnlab conv=im2col epochs=2
    <BLANKLINE>
    """
    # Where a run was kept and logged says nothing of it.
    told = [
        [
            line
            for line in r.overrides
            if line.startswith("experiment=") or is_essential(line.partition("=")[0])
        ]
        for r in results
    ]
    rows = ["| | test accuracy | val accuracy | orthogonality loss |", "|---|---|---|---|"]
    for lines, result in zip(told, results, strict=True):
        apart = " ".join(line for line in lines if not all(line in others for others in told))
        values = [result.metrics.get(name) for name in ("test/accuracy", "val/accuracy", "ortho/loss")]
        cells = ["-" if value is None else number(value) for value in values]
        rows.append(f"| {apart} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", *(f"    cnnlab {shlex.join(lines)}" for lines in told), ""])


def replace(page: str, content: str) -> str:
    """The page with new content between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{content}{END}{after}"


def read(folder: Path) -> list[Result]:
    """The results in a folder, at any depth, the best first."""
    found = (Result.read(path.parent) for path in folder.rglob("result.json"))
    results = [result for result in found if result is not None]
    return sorted(results, key=lambda result: -result.metrics.get("test/accuracy", 0))


def main(folder: str, page: str) -> None:
    Path(page).write_text(replace(Path(page).read_text(), table(read(Path(folder)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
