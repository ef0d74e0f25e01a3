"""Which cell libraries there are tables for, where their files lie, and how to get one."""

import hashlib
import io
import tarfile
import urllib.request
from functools import lru_cache
from pathlib import Path

import pandas as pd

from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import write_atomic
from bnnlib.hardware.cells import Library

COLUMNS = ["library", "node_nm", "supply_v", "corner", "files", "sha256", "licence", "source", "get"]
DEBIAN = Path("/usr/share/qflow/tech/osu018")
# Debian keeps it as long as a release has it; afterwards snapshot.debian.org does
PACKAGE = "https://deb.debian.org/debian/pool/main/q/qflow/qflow-tech-osu018_1.3.17+dfsg.1-3_all.deb"
PACKAGE_SHA256 = "64fae4bebbbd6a849c8c87c8e86d5fe137df44a1ea7715dcd59d11c720019428"


def catalogue() -> pd.DataFrame:
    """``data/energy/libraries.csv``: a row a library that a committed table was made with."""
    return pd.read_csv(paths.ENERGY / "libraries.csv", dtype=str).set_index("library")


def folder(name: str) -> Path:
    """Where a library's files are looked for: ``data/downloads/liberty/NAME``."""
    return paths.DATA / "downloads" / "liberty" / name


def find(name: str) -> tuple[Path, ...]:
    """The files of a library of the catalogue; empty if it is not here.

    Raises:
        UserError: the catalogue does not have it.
    """
    known = catalogue()
    if name not in known.index:
        raise UserError(f"library {name!r} is unknown; use {', '.join(known.index)}, or name its files with --liberty")
    files = known.loc[name, "files"].split(";")
    for place in (folder(name), DEBIAN):
        for suffix in ("", ".gz"):
            found = tuple(place / (file + suffix) for file in files)
            if all(path.is_file() for path in found):
                return found
    return ()


def load(name: str, files: tuple[Path, ...] = ()) -> Library:
    """A library by name, from ``files`` or from where it is looked for.

    Raises:
        UserError: it is not here: says how to get it.
    """
    files = files or find(name)
    if not files:
        raise UserError(f"library {name} is not here; {catalogue().loc[name, 'get']}, or name its files with --liberty")
    for path in files:
        if not path.is_file():
            raise UserError(f"no file {path}; --liberty takes the Liberty files of library {name}")
    return _load(name, tuple(sorted(files, key=lambda path: path.name)))


@lru_cache(maxsize=4)
def _load(name: str, files: tuple[Path, ...]) -> Library:
    return Library(name, files)


def get(name: str) -> Path:
    """Download osu018 to ``folder``; the checksums of the package and of the library are compared first.

    Raises:
        UserError: the library is another one, there is no network, or a checksum is wrong.
    """
    if name != "osu018":
        how = catalogue()["get"].get(name, "it is not in the catalogue; name its files with --liberty")
        raise UserError(f"library {name} is not one that can be downloaded; {how}")
    try:
        with urllib.request.urlopen(PACKAGE, timeout=30) as answer:
            package = answer.read()
    except OSError as error:
        raise UserError(f"cannot download {PACKAGE}: {error}; or: apt install qflow-tech-osu018") from error
    if hashlib.sha256(package).hexdigest() != PACKAGE_SHA256:
        raise UserError(f"{PACKAGE} has a wrong checksum; or: apt install qflow-tech-osu018")
    file = catalogue().loc[name, "files"]
    with tarfile.open(fileobj=io.BytesIO(_member(package, b"data.tar"))) as archive:
        inside = next(member for member in archive.getmembers() if member.name.endswith(f"/{file}"))
        content = archive.extractfile(inside).read()
    if hashlib.sha256(content).hexdigest() != catalogue().loc[name, "sha256"]:
        raise UserError(f"{file} of {PACKAGE} has a wrong checksum")
    return write_atomic(folder(name) / file, content)


def _member(package: bytes, name: bytes) -> bytes:
    """A file of an ar archive, which a Debian package is: headers of 60 bytes, the size in the last ten of 58."""
    at = 8
    while at < len(package):
        header = package[at : at + 60]
        size = int(header[48:58])
        if header.startswith(name):
            return package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise UserError(f"the package has no {name.decode()}")
