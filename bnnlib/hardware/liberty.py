"""The Liberty format: groups ``name (args) {…}``, attributes ``name : value ;`` and lists ``name (…) ;``.

A reader of its own, since the parser on PyPI (liberty-parser) is under the GPL; files are careless about semicolons,
quotes and line ends. What the groups mean is in ``cells``.
Reference: Synopsys, "Liberty User Guide".
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bnnlib.errors import UserError

TOKEN = re.compile(
    r"""(?P<skip>\s+ | \\\s*\n | /\*.*?\*/ | //[^\n]* | ;)
      | (?P<end>\})
      | (?P<list>[\w.]+\s*\((?P<args>(?:"[^"]*"|[^()"])*)\)\s*(?P<open>\{)?)
      | (?P<attribute>[\w.]+)\s*:\s*(?P<value>"[^"]*"|[^;\n}]*)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass
class Group:
    """``name (args) { … }``: attributes and lists by name, and the groups within."""

    name: str
    args: str
    values: dict[str, str] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def all(self, *names: str) -> Iterator["Group"]:
        return (group for group in self.groups if group.name in names)


def read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"Liberty file {path} cannot be read: {error}") from error


def parse(text: str, path: Path) -> Group:
    """The ``library`` group of a file."""
    root = Group("", "")
    stack, at = [root], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise UserError(f"{path} line {line}: not Liberty: {text[at : at + 30].split(chr(10))[0]!r}")
        at = match.end()
        if match["end"]:
            stack.pop()
            if not stack:
                break
        elif match["list"]:
            name, args = match["list"].split("(", 1)[0].strip(), match["args"]
            if match["open"]:
                stack[-1].groups.append(Group(name, args.strip()))
                stack.append(stack[-1].groups[-1])
            else:
                stack[-1].values[name] = args
        elif match["attribute"]:
            stack[-1].values[match["attribute"]] = match["value"].strip().strip('"').strip()
    library = next(root.all("library"), None)
    if library is None or len(stack) != 1:
        raise UserError(f"{path} is no complete Liberty file: its library group is missing or does not end")
    return library
