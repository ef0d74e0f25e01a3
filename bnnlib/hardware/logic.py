"""Boolean expressions of Liberty files as truth tables.

Written with ``!a`` or ``a'`` (not), ``a * b``, ``a & b`` or ``a b`` (and), ``a ^ b``, ``a + b`` or ``a | b`` (or).
A truth table is an int: bit i is the value for the inputs that spell i in binary, the first input lowest.
"""

import re

from bnnlib.errors import UserError

TOKEN = re.compile(r"[A-Za-z_][\w\[\]]*|[01]|[!~'()*&+|^]")


def truth_table(text: str, inputs: tuple[str, ...]) -> int:
    """The truth table of an expression over ``inputs``.

    Raises:
        UserError: it is no expression of these inputs.
    """
    size = 1 << len(inputs)
    full = (1 << size) - 1
    values = {name: sum(1 << i for i in range(size) if i >> k & 1) for k, name in enumerate(inputs)}
    tokens = [*TOKEN.findall(text), ""]
    at = 0

    def take() -> str:
        nonlocal at
        at += 1
        return tokens[at - 1]

    def atom() -> int:
        token = take()
        if token in ("!", "~"):
            return full ^ atom()
        if token == "(":
            value = either()
            if take() != ")":
                raise UserError(f"expression {text!r} lacks a bracket")
        elif token in ("0", "1"):
            value = full * int(token)
        elif token in values:
            value = values[token]
        else:
            raise UserError(f"expression {text!r} has {token!r}, which is none of {', '.join(inputs)}")
        while tokens[at] == "'":
            take()
            value ^= full
        return value

    def exclusive() -> int:
        value = atom()
        while tokens[at] == "^":
            take()
            value ^= atom()
        return value

    def both() -> int:
        value = exclusive()
        while tokens[at] in ("*", "&", "(", "!", "~", "0", "1") or tokens[at] in values:
            if tokens[at] in ("*", "&"):
                take()
            value &= exclusive()
        return value

    def either() -> int:
        value = both()
        while tokens[at] in ("+", "|"):
            take()
            value |= both()
        return value

    result = either()
    if tokens[at]:
        raise UserError(f"expression {text!r} is not understood from {tokens[at]!r} on")
    return result


def share(text: str) -> float:
    """The share of its variables' states in which an expression holds."""
    names = tuple(dict.fromkeys(re.findall(r"[A-Za-z_][\w\[\]]*", text)))
    return truth_table(text, names).bit_count() / (1 << len(names))
