"""At most one process trains a run, however many were started."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bnnlib.errors import UserError


@contextmanager
def locked(path: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold the lock file ``path`` (made if it is missing, removed at the end) against all other processes.

    The system takes the lock back when its process ends in whatever way, so none is ever left behind. It holds between
    machines too where they share the folder; on a file system without such locks there is none.

    Args:
        path: the lock file.
        patience: seconds to wait for another holder, who may be about to stop.

    Raises:
        UserError: another process keeps it, or the folder cannot be written.
    """
    until = time.monotonic() + patience
    handle = _try_lock(path)
    while handle is None:
        if time.monotonic() > until:
            raise UserError(f"another process is training it (it holds {path}); wait for that one, or stop it")
        time.sleep(0.1)
        handle = _try_lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _try_lock(path: Path) -> int | None:
    """An open file that holds the lock, or None if another has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # a file system without locks
        return handle
    try:
        if os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
    except FileNotFoundError:
        pass
    os.close(handle)  # the last holder removed this file between our opening and locking it
    return None
