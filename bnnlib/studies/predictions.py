"""What a trained network took each image for, kept in its result file: 4 bits per image, the first in the lower half.

With them two networks can be compared image by image, which tells smaller differences apart than their accuracies do.
"""

import base64
import binascii

import numpy as np

from bnnlib.data import Data
from bnnlib.errors import UserError

CLASSES = 16  # that 4 bits tell apart


def encode(classes: np.ndarray) -> dict:
    """Classes [N], integers from 0 to 15, as JSON-ready ``count`` and ``classes`` (base64).

    Raises:
        ValueError: a class has no code.
    """
    if len(classes) and not 0 <= classes.min() <= classes.max() < CLASSES:
        raise ValueError(f"classes from {classes.min()} to {classes.max()} do not fit into 4 bits")
    halves = np.zeros(len(classes) + len(classes) % 2, np.uint8)
    halves[: len(classes)] = classes
    packed = halves[0::2] | halves[1::2] << 4
    return {"count": len(classes), "classes": base64.b64encode(packed.tobytes()).decode()}


def decode(kept: dict) -> np.ndarray:
    """The classes uint8 [N] that ``encode`` kept.

    Raises:
        UserError: it is damaged.
    """
    try:
        packed = np.frombuffer(base64.b64decode(kept["classes"], validate=True), np.uint8)
        count = kept["count"]
        classes = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
        if len(classes) != count + count % 2 or classes[count:].any():
            raise ValueError(f"{len(packed)} bytes are not those of {count} images")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise UserError(f"predictions are damaged ({error}); make the result anew") from error
    return classes[:count]


def check_predictions(result: dict, data: Data) -> None:
    """Hold the predictions of a result against the labels and its accuracies.

    Args:
        result: what a result file holds.
        data: its data set.

    Raises:
        UserError: the result has none, is of other data, or they contradict an accuracy.
    """
    name = f"{result['name']} seed {result['seed']}"
    if "predictions" not in result:
        raise UserError(f"{name} was made before predictions were kept; make it anew to have them")
    if result["data_sha256"] != data.checksum:
        raise UserError(f"{name} was made with other data than these; use those of its spec")
    for part, labels in (("val", data.val_y), ("test", data.test_y)):
        classes, stated = decode(result["predictions"][part]), result[f"{part}_accuracy"]
        if len(classes) != len(labels):
            raise UserError(f"{name} has {len(classes)} {part} predictions; the data have {len(labels)} images")
        found = 100 * float((classes == labels.cpu().numpy()).mean())
        if abs(found - stated) > 1e-6:
            raise UserError(f"{name} says {stated} % of {part}; its predictions have {found:.4f} %; make it anew")
