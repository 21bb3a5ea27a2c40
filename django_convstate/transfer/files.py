"""The files of an export: compressed by gzip if their names end in ".gz"."""

import errno
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast


@contextmanager
def open_to_write(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` at the end of the with block, if no error leaves
    it: what is there is complete. Only this user may read it.

    What is killed leaves a file with ".part" at the end of its name, which the next one overwrites.

    Raises:
        OSError: it cannot be written; or it is a device, a pipe or a directory, which no file is to
            take the place of.
    """
    target = path.resolve()  # a link stays one
    _refuse_to_replace(target)
    part = target.with_name(f"{target.name}.part")
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
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _refuse_to_replace(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(
            errno.EINVAL, "It is no file that can be replaced. - is standard output", str(path)
        )


def open_to_read(path: Path) -> IO[bytes]:
    """Open a file for `import_from`."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
