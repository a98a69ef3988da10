"""Files that are whole or not there: written beside their final name, then renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to the final one once all is written; an exception leaves that as it was.

    >>> import tempfile
    >>> final = Path(tempfile.mkdtemp(), "x.json")
    >>> with replacing(final) as part:
    ...     _ = part.write_text("{}")
    >>> part.name, part.exists(), final.read_text()
    ('x.json.tmp', False, '{}')
    """
    part = path.with_name(f"{path.name}.tmp")
    yield part
    os.replace(part, path)
