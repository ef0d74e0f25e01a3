"""Picture files as the images that a network takes."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from bnnlib.errors import UserError

DEFAULT = "binary-short-s1.safetensors"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read(pictures: tuple[Path, ...], shape: tuple[int, int, int], invert: bool = False) -> np.ndarray:
    """uint8 [N, C, H, W] of picture files, as grey or RGB by C, scaled with a bilinear filter.

    Raises:
        UserError: a file is missing or no picture.
    """
    channels, height, width = shape
    found = []
    for picture in pictures:
        try:
            with Image.open(picture) as opened:
                scaled = opened.convert("L" if channels == 1 else "RGB").resize(
                    (width, height), Image.Resampling.BILINEAR
                )
        except FileNotFoundError as error:
            raise UserError(f"no file {picture}") from error
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{picture} is no picture that can be read; use a PNG or JPEG file") from error
        values = np.asarray(scaled).reshape(height, width, channels).transpose(2, 0, 1)
        found.append(255 - values if invert else values)
    return np.stack(found)


def class_names(arch: str) -> tuple[str, ...]:
    """What the ten outputs mean for the data set that a network of this architecture is trained on."""
    return CIFAR10 if arch == "vggnet7" else tuple("0123456789")
