"""Data sets as uint8 tensors: found or downloaded, verified, split.

MNIST, Fashion-MNIST, CIFAR-10 and SVHN are read by torchvision after the md5 sums that torchvision lists were checked
here (CIFAR-10 is a pickle: nothing unverified is opened). `digits` is scikit-learn's embedded copy of the UCI
handwritten digits, for which nothing has to be downloaded.

Splits (the paper's, from its released code): the last 10,000 training images of MNIST and the last 5,000 of CIFAR-10
validate. Validation images are never augmented (the released code augments those of CIFAR-10).
"""

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import write_atomic
from bnnlib.specs import DATASETS, OWN


@dataclass(frozen=True)
class Data:
    """Images uint8 [N, C, H, W] and labels int64 [N] of the three splits."""

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor

    @classmethod
    def of(cls, train: tuple, val: tuple, test: tuple) -> "Data":
        """Data of your own.

        Args:
            train, val, test: (images, labels) each, as tensors or arrays: uint8 [N, C, H, W] and integers [N] from 0.

        Raises:
            UserError: a part is empty, or its images or labels are of another type or shape.
        """
        parts = [_part(name, *pair) for name, pair in (("train", train), ("val", val), ("test", test))]
        for name, (x, _) in zip(("val", "test"), parts[1:], strict=True):
            if x.shape[1:] != parts[0][0].shape[1:]:
                shapes = [list(part.shape[1:]) for part in (x, parts[0][0])]
                raise UserError(f"{name} images are {shapes[0]}, those of train {shapes[1]}; make them equal")
        return cls(*(tensor for part in parts for tensor in part))

    @property
    def checksum(self) -> str:
        """SHA-256 over the bytes of all six tensors in order: content and split."""
        digest = hashlib.sha256()
        for f in fields(self):
            digest.update(getattr(self, f.name).cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "Data":
        """The same data on ``device``."""
        return Data(*(getattr(self, f.name).to(device) for f in fields(self)))


def _part(name: str, x: object, y: object) -> tuple[Tensor, Tensor]:
    """Images and labels of one split as tensors, checked."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if x.dtype != torch.uint8 or x.ndim != 4 or not len(x):
        raise UserError(f"{name} images are {x.dtype} {list(x.shape)}; give torch.uint8 [N, C, H, W], 0 to 255")
    if y.is_floating_point() or y.is_complex() or y.shape != x.shape[:1] or bool((y < 0).any()):
        raise UserError(f"{name} labels are {y.dtype} {list(y.shape)}; give {len(x)} integers of 0 or more")
    return x, y.long()


@dataclass(frozen=True)
class Source:
    """Where the images of a data set come from.

    Args:
        image: shape (C, H, W) of an image; None if they are made to fit the network.
        validation: how many of the last training images validate.
        read: function of the folder of data sets and of the shape of an image; returns images and labels to train, then
            to test: uint8 [N, C, H, W], integers [N], uint8 [M, C, H, W], integers [M]. Its files are verified before.
        files: function of that folder: the files, with their md5 sums. A file `.gz` is unpacked beside itself.
        download: function of that folder that fetches the files that are missing; None if there is nothing to fetch.
    """

    image: tuple[int, int, int] | None
    validation: int
    read: Callable[[Path, tuple[int, int, int]], tuple]
    files: Callable[[Path], dict[Path, str]] = lambda folder: {}
    download: Callable[[Path], object] | None = None


def register_dataset(name: str, source: Source) -> None:
    """Make a data set known: ``TrainSpec(name, ...)`` and ``load`` then take it.

    Args:
        name: a new name, as it stands in specs.
        source: where its images come from.

    Raises:
        UserError: the name is taken, or no image would validate.
    """
    if name in (*DATASETS, OWN):
        raise UserError(f"data set {name!r} is there already; use another name")
    if source.validation < 1:
        raise UserError(f"data set {name!r} validates on {source.validation} images; use 1 or more")
    SOURCES[name] = source
    DATASETS.append(name)


def _mnist(cls: type) -> Source:
    """MNIST, or what has its format."""

    def read(folder: Path, image: tuple) -> tuple:
        parts = [cls(str(folder), train) for train in (True, False)]
        return tuple(array for p in parts for array in (p.data.numpy()[:, None], p.targets.numpy()))

    def files(folder: Path) -> dict[Path, str]:
        return {folder / cls.__name__ / "raw" / file: md5 for file, md5 in cls.resources}

    return Source((1, 28, 28), 10_000, read, files, lambda folder: cls(str(folder), download=True))


def _read_cifar10(folder: Path, image: tuple) -> tuple:
    parts = [datasets.CIFAR10(str(folder), train) for train in (True, False)]
    return tuple(array for p in parts for array in (p.data.transpose(0, 3, 1, 2), p.targets))


def _cifar10_files(folder: Path) -> dict[Path, str]:
    cls = datasets.CIFAR10
    listed = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
    return {folder / cls.base_folder / file: md5 for file, md5 in listed}


def _svhn(folder: Path, **options: bool) -> list[datasets.SVHN]:
    """Both parts; unlike the others, torchvision's class adds no folder of its own."""
    return [datasets.SVHN(str(folder / "svhn"), split, **options) for split in ("train", "test")]


def _svhn_files(folder: Path) -> dict[Path, str]:
    listed = [datasets.SVHN.split_list[split] for split in ("train", "test")]
    return {folder / "svhn" / file: md5 for _, file, md5 in listed}


def _read_digits(folder: Path, image: tuple) -> tuple:
    """The 1,797 digits of 8 x 8 pixels, enlarged bilinearly; a fixed shuffle, the last 300 to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    small = torch.from_numpy(bunch.images[order]).float()[:, None] * (255 / 16)
    large = F.interpolate(small, size=image[1:], mode="bilinear", align_corners=False)
    x = large.round().clamp(0, 255).to(torch.uint8).expand(-1, image[0], -1, -1).numpy()
    y = bunch.target[order]
    return x[:-300], y[:-300], x[-300:], y[-300:]


SOURCES = {
    "mnist": _mnist(datasets.MNIST),
    "fashion-mnist": _mnist(datasets.FashionMNIST),
    "cifar10": Source(
        (3, 32, 32), 5_000, _read_cifar10, _cifar10_files,
        lambda folder: datasets.CIFAR10(str(folder), download=True),
    ),
    "svhn": Source(
        (3, 32, 32), 7_000, lambda folder, image: tuple(a for p in _svhn(folder) for a in (p.data, p.labels)),
        _svhn_files, lambda folder: _svhn(folder, download=True),
    ),
    "digits": Source(None, 300, _read_digits),
}  # fmt: skip


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise UserError(f"data set {name!r} is unknown; use one of {', '.join(DATASETS)}")
    return SOURCES[name]


def load(name: str, image: tuple[int, int, int] | None = None) -> Data:
    """Read a verified data set.

    Args:
        name: one of ``specs.DATASETS``.
        image: (C, H, W) that the network takes; ``digits`` is made to fit it, for others it must be theirs.

    Raises:
        UserError: a file is missing or damaged, or the images do not fit the network.
    """
    source = _source(name)
    if None not in (image, source.image) and image != source.image:
        fitting = [other for other, one in SOURCES.items() if one.image in (None, image)]
        raise UserError(
            f"data set {name!r} has images {source.image}, the network takes {image}; use {', '.join(fitting)}"
        )
    verify(name)
    x, y, test_x, test_y = source.read(paths.datasets_dir(), source.image or image or (1, 28, 28))
    x, test_x = (torch.from_numpy(np.ascontiguousarray(a, dtype=np.uint8)) for a in (x, test_x))
    y, test_y = (torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in (y, test_y))
    n = len(x) - source.validation
    if n < 1:
        raise UserError(f"data set {name!r} has {len(x)} images to train, of which {source.validation} validate")
    return Data.of((x[:n], y[:n]), (x[n:], y[n:]), (test_x, test_y))


def expected_files(name: str) -> dict[Path, str]:
    """The files of a data set with their md5 sums."""
    return _source(name).files(paths.datasets_dir())


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def verify(name: str) -> None:
    """Check that every file of a data set is there and has its md5 sum.

    Raises:
        UserError: names the first file that is missing or damaged, and the command that fetches it.
    """
    for path, md5 in expected_files(name).items():
        if not path.exists():
            raise UserError(
                f"data set {name} has no {path}; fetch it with `bnn data get {name}`, "
                "or set BNN_DATA to the folder that holds it"
            )
        if (found := _md5(path)) != md5:
            raise UserError(f"{path} is damaged (md5 {found}, should be {md5}); mend it with `bnn data get {name}`")
        if path.suffix == ".gz":
            _unpack(path)


def _unpack(archive: Path) -> None:
    """Torchvision reads the unpacked file, for which it lists no md5: keep it equal to the verified archive."""
    raw = gzip.decompress(archive.read_bytes())
    target = archive.with_suffix("")
    if not target.exists() or target.read_bytes() != raw:
        write_atomic(target, raw)


def get(name: str) -> None:
    """Download a data set where it is missing or damaged, and verify it.

    Raises:
        UserError: the download failed.
    """
    download = _source(name).download
    try:
        for path, md5 in expected_files(name).items():
            if not path.exists() or _md5(path) != md5:
                path.unlink(missing_ok=True)
                if path.suffix == ".gz":  # torchvision fetches an archive only where its content is missing
                    path.with_suffix("").unlink(missing_ok=True)
        if download and not all(path.exists() for path in expected_files(name)):
            download(paths.datasets_dir())
    except (OSError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot download {name} to {paths.datasets_dir()}: {reason}; put its files there by hand, or set BNN_DATA "
            "to their folder"
        ) from error
    verify(name)
