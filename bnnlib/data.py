"""Data sets as uint8 tensors: found or downloaded, verified, split.

MNIST, Fashion-MNIST, CIFAR-10 and SVHN are read by torchvision after the md5 sums that torchvision lists were checked
here (CIFAR-10 is a pickle: nothing unverified is opened). `digits` is scikit-learn's embedded copy of the UCI
handwritten digits, for which nothing has to be downloaded.

Splits (the paper's, from its released code): the last 10,000 training images of MNIST and the last 5,000 of CIFAR-10
validate. Validation images are never augmented (the released code augments those of CIFAR-10).
"""

import gzip
import hashlib
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
from bnnlib.specs import DATASETS

IMAGE_SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32), "svhn": (3, 32, 32)}
VALIDATION_IMAGES = {"mnist": 10_000, "fashion-mnist": 10_000, "cifar10": 5_000, "svhn": 7_000, "digits": 300}


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


def load(name: str, image: tuple[int, int, int] | None = None) -> Data:
    """Read a verified data set.

    Args:
        name: one of ``specs.DATASETS``.
        image: (C, H, W) that the network takes; ``digits`` is made to fit it, for others it must be theirs.

    Raises:
        UserError: a file is missing or damaged, or the images do not fit the network.
    """
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is unknown; use one of {', '.join(DATASETS)}")
    if name == "digits":
        return _split(name, *_digits(image or (1, 28, 28)))
    if image is not None and image != IMAGE_SHAPES[name]:
        fitting = [d for d in DATASETS if IMAGE_SHAPES.get(d, image) == image]
        raise UserError(
            f"data set {name!r} has images {IMAGE_SHAPES[name]}, the network takes {image}; use {', '.join(fitting)}"
        )
    verify(name)
    root = str(_root(name))
    if name == "svhn":
        parts = [datasets.SVHN(root, split) for split in ("train", "test")]
        arrays = [(p.data, p.labels) for p in parts]
    elif name == "cifar10":
        parts = [datasets.CIFAR10(root, train) for train in (True, False)]
        arrays = [(p.data.transpose(0, 3, 1, 2), p.targets) for p in parts]
    else:
        cls = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
        parts = [cls(root, train) for train in (True, False)]
        arrays = [(p.data.numpy()[:, None], p.targets.numpy()) for p in parts]
    (x, y), (test_x, test_y) = arrays
    return _split(name, x, y, test_x, test_y)


def _split(name: str, x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> Data:
    x, test_x = (torch.from_numpy(np.ascontiguousarray(a, dtype=np.uint8)) for a in (x, test_x))
    y, test_y = (torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in (y, test_y))
    n = len(x) - VALIDATION_IMAGES[name]
    return Data(x[:n], y[:n], x[n:], y[n:], test_x, test_y)


def _digits(image: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """The 1,797 digits of 8 x 8 pixels, enlarged bilinearly; a fixed shuffle, the last 300 to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    small = torch.from_numpy(bunch.images[order]).float()[:, None] * (255 / 16)
    large = F.interpolate(small, size=image[1:], mode="bilinear", align_corners=False)
    x = large.round().clamp(0, 255).to(torch.uint8).expand(-1, image[0], -1, -1).numpy()
    y = bunch.target[order]
    return x[:-300], y[:-300], x[-300:], y[-300:]


def _root(name: str) -> Path:
    """What torchvision calls root: it adds a folder of the data set itself, except for SVHN."""
    return paths.datasets_dir() / "svhn" if name == "svhn" else paths.datasets_dir()


def expected_files(name: str) -> dict[Path, str]:
    """The files of a data set with the md5 sums that torchvision lists for them."""
    root = _root(name)
    if name in ("mnist", "fashion-mnist"):
        cls = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
        return {root / cls.__name__ / "raw" / file: md5 for file, md5 in cls.resources}
    if name == "cifar10":
        cls = datasets.CIFAR10
        listed = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
        return {root / cls.base_folder / file: md5 for file, md5 in listed}
    if name == "svhn":
        return {root / datasets.SVHN.split_list[s][1]: datasets.SVHN.split_list[s][2] for s in ("train", "test")}
    return {}


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
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is unknown; use one of {', '.join(DATASETS)}")
    root = str(_root(name))
    try:
        for path, md5 in expected_files(name).items():
            if not path.exists() or _md5(path) != md5:
                path.unlink(missing_ok=True)
                if path.suffix == ".gz":  # torchvision fetches an archive only where its content is missing
                    path.with_suffix("").unlink(missing_ok=True)
        if all(path.exists() for path in expected_files(name)):
            return verify(name)
        if name == "svhn":
            for split in ("train", "test"):
                datasets.SVHN(root, split, download=True)
        else:
            cls = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[name]
            cls(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot download {name} to {root}: {reason}; put its files there by hand, or set BNN_DATA to their folder"
        ) from error
    verify(name)
