"""Files that are there in whole or as they were before, also after a crash."""

from __future__ import annotations

import os
from pathlib import Path


def write_aside(path: Path, data: bytes) -> None:
    """Write a file beside ``path`` (``*.part``), sync it and give it the name.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_aside(Path(folder, "a"), b"one")
    ...     write_aside(Path(folder, "a"), b"two")
    ...     Path(folder, "a").read_bytes(), [path.name for path in Path(folder).iterdir()]
    (b'two', ['a'])
    """
    aside = path.with_name(f"{path.name}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
