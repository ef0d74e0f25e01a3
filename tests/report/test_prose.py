"""The numbers in the prose of the notebooks are those of their outputs, or of the tables of the paper and the review.

A quantity is a decimal number with a unit. A sentence that names networks of the studies has to take it from an output
line that names one of them, so that a new result cannot leave an old number behind.
"""

import re

import pandas as pd
import pytest

from bnnlib import paths, studies
from bnnlib.report import notebooks

# those in small letters are words of the prose as well
NETWORKS = sorted({name for study in studies.STUDIES.values() for name in study.networks if name != name.lower()})
UNIT = r"\s?(?:%|points?|nJ|µJ|uJ|fJ|dB)(?!\w)"
# both numbers of '99.26 to 99.32 %'
QUANTITY = re.compile(rf"(?<![\w.])\d+\.\d+(?=(?: (?:to|and|or) \d+\.\d+)?{UNIT})")
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")
READ = {
    "paper_pareto_points": ["accuracy_percent"],
    "literature": ["cifar10_accuracy_percent", "mnist_accuracy_percent"],
}


def pieces(text):
    """Parts of sentences, each about one thing; without formulas on lines of their own, code and addresses."""
    text = re.sub(r"`([^`]*)`", lambda code: code[1] if code[1] in NETWORKS else " ", text)
    text = re.sub(r"\$\$.*?\$\$|\]\([^)]*\)", " ", text, flags=re.S).replace("\\,", " ").replace("\\%", "%")
    return re.split(r"(?<=[.;:])\s+|\n\s*[-|] *|\n\n", text)


def names(text):
    return {name for name in NETWORKS if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)}


def numbers(lines):
    return {float(found.replace(",", "")) for line in lines for found in NUMBER.findall(line)}


def is_written(value, text):
    """Whether a number, rounded to the digits of the text, is what the text says."""
    return abs(value - float(text)) <= 0.5 * 10 ** -len(text.partition(".")[2]) + 1e-9


def strange(text, lines, elsewhere=()):
    """Quantities of a text that are neither in the lines of the networks it is about, or in any line, nor elsewhere."""
    found = []
    for piece in pieces(text):
        about = names(piece)
        known = numbers(line for line in lines if not about or about & names(line)) | set(elsewhere)
        wrong = [number for number in QUANTITY.findall(piece) if not any(is_written(k, number) for k in known)]
        found += [f"{number} in {piece.strip()!r}" for number in wrong]
    return found


def prose_and_lines(path):
    """The prose of a notebook, and the lines of its printed outputs and tables."""
    cells = notebooks.read(path)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = ["".join(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs]
    prose = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    return prose, [line for text in texts for line in text.splitlines()]


@pytest.fixture(scope="module")
def read():
    """Accuracies of others, in percent."""
    tables = [pd.read_csv(paths.DATA / f"{name}.csv") for name in READ]
    columns = [table[column].dropna() for table, names in zip(tables, READ.values(), strict=True) for column in names]
    return set(pd.concat(columns))


@pytest.mark.parametrize("path", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_numbers_of_the_prose_are_in_the_outputs(path, read):
    assert strange(*prose_and_lines(path), read) == []


def test_the_search_finds_numbers_in_the_prose():
    prose, _ = prose_and_lines(paths.NOTEBOOKS / "05_lenet_mnist.ipynb")
    assert len(QUANTITY.findall(prose)) > 10, "is its pattern still right?"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("TACTS gains 0.15 points for 8.7 nJ.", []),
        ("TACTS gains 0.14 points for 8.7 nJ.", ["0.14"]),
        ("TACTS gains 0.15 points; TALL is at 0.15 points.", ["0.15"]),  # that of another network
        ("The energies go from 8.68 to 12.6 nJ, the accuracies up to 99.40 %.", []),
        ("They go from 8.6 to 12.5 nJ, the accuracies up to 99.41\\%.", ["8.6", "12.5", "99.41"]),
        ("See `7.77 %` and [this](7.77 %), for $$7.77 %$$ of arXiv 1602.02830 in version 7.77.", []),
    ],
)
def test_a_number_that_nothing_shows_is_named(text, wrong):
    lines = ["TACTS  3   8.68  0.153", "TALL   3  12.56  0.178"]
    assert [line.partition(" ")[0] for line in strange(text, lines, [99.4])] == wrong
