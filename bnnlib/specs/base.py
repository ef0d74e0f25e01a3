"""What the specs share: checks of their values, a plain dictionary, and a hash of it."""

import dataclasses
import hashlib
import json
from typing import ClassVar

from bnnlib.errors import UserError


class Spec:
    """What the specs share: a plain dictionary, a hash of it, and the way back.

    Attributes:
        LATER: fields that came after the first results; at the value that all had before they are left out, so that a
            spec keeps its hash, and a result its spec, when a field is added.
        BEFORE: what that value is, where it is not the default.
    """

    LATER: ClassVar[tuple[str, ...]] = ()
    BEFORE: ClassVar[dict[str, object]] = {}

    def as_dict(self) -> dict:
        """The spec as JSON-ready nested dictionaries."""
        before = {f.name: f.default for f in dataclasses.fields(self) if f.name in self.LATER} | self.BEFORE
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {key: value.as_dict() if isinstance(value, Spec) else value for key, value in values.items()}
        plain = json.loads(json.dumps(plain))
        return {key: value for key, value in plain.items() if key not in before or value != before[key]}

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def but(self, **changes: object) -> "Spec":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def one_of(what: str, value: object, allowed: tuple) -> None:
    """Refuse a value that is not in a list.

    Raises:
        UserError: names the value and the list.
    """
    if value not in allowed:
        raise UserError(f"{what} {value!r} is unknown; use one of {', '.join(map(repr, allowed))}")


def number(what: str, value: object, low: float, kind: type | tuple = (int, float)) -> None:
    """Refuse what is not a finite number of a kind, or is less than ``low``.

    Raises:
        UserError: names the value and the least one.
    """
    if isinstance(value, bool) or not isinstance(value, kind) or not value >= low or value == float("inf"):
        raise UserError(f"{what} {value!r} is not possible; use a number of at least {low}")


def booleans(spec: object, *names: str) -> None:
    """Refuse a spec some of whose fields should be True or False and are not.

    Raises:
        UserError: names the field and its value.
    """
    for name in names:
        if not isinstance(getattr(spec, name), bool):
            raise UserError(f"{name} {getattr(spec, name)!r} is unknown; use True or False")
