"""Files that are either whole or absent, and their hashes."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from bnnlib.errors import UserError


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write ``content`` to ``path`` through a temporary file beside it, so that a crash never leaves half a file.

    Raises:
        UserError: the folder cannot be made or written.
    """
    path = Path(path)
    raw = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; results are for sharing
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def check_writable(folder: Path | str) -> None:
    """Raise UserError unless a file can be written in ``folder`` (made if it is missing)."""
    probe = Path(folder) / ".writable"
    write_atomic(probe, "")
    probe.unlink(missing_ok=True)


def write_json(path: Path | str, value: object) -> Path:
    """Write ``value`` as indented JSON with a final newline, atomically."""
    return write_atomic(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, or restore it with git checkout") from error


def sha256(path: Path | str) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
