"""The files of an export: compressed by gzip if their names end in ".gz"."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast


@contextmanager
def open_to_write(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` at the end of the with block, if no error leaves
    it: what is there is complete. Nobody but this user may read it.

    What is killed leaves a file with ".part" at the end of its name, which the next one overwrites.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(path.stem, "wb", fileobj=raw) as file:
                    yield cast("IO[bytes]", file)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_to_read(path: Path) -> IO[bytes]:
    """Open a file for `import_from`."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
