"""At most one process trains a run, however many were started."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bnnlib.errors import UserError


@contextmanager
def locked(path: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold the lock file ``path`` (made if it is missing, removed at the end) against all other processes.

    The system takes the lock back when its process ends in whatever way, so none is ever left behind. It holds between
    machines too where they share the folder.

    Args:
        path: the lock file.
        patience: seconds to wait for another holder, who may be about to stop.

    Raises:
        UserError: another process keeps it, or the folder cannot be written.
    """
    lock = FileLock(path, timeout=patience)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=0.1)
    except Timeout as error:
        raise UserError(f"another process is training it (it holds {path}); wait for that one, or stop it") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    try:
        yield
    finally:
        with suppress(OSError):  # who waits for this file sees that it is gone, and makes another
            path.unlink()
        lock.release()
