"""The tables of the review: every row says where it comes from and how certain it is, in words that are known."""

import json
import re

import pandas as pd
import pytest

from bnnlib import paths
from bnnlib.report import notebooks

REVIEW = paths.NOTEBOOKS / "01_review.ipynb"
OPERANDS = {"binary", "ternary", "kbit", "multi", "real"}
WORDS = {
    "idea": {"quantizer", "scale", "estimator", "training", "architecture", "bases", "language"},
    "weights": OPERANDS,
    "activations": OPERANDS,
    "scale": {"", "none", "layer", "channel", "pixel", "sign", "bases", "input"},
    "estimator": {"", "identity", "clip", "bireal", "swish", "relu", "annealed", "learned", "none"},
    "first_last": {"", "quantized", "8bit", "real"},
    "padding": {"", "zero", "replicate"},
    "selection": {"", "validation", "test", "not stated", "unknown"},
    "certainty": {"read", "quoted", "recalled"},
}
VERDICTS = {"complementary", "redundant", "incompatible", "competing"}
KINDS = {"demo": "shown", "cite": "read", "argument": "argued"}
ACCURACIES = ("cifar10", "mnist")
# what the authors wrote or released: a paper, or a repository
PRIMARY = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/|openreview:\w+|openaccess\.thecvf\.com|github\.com/\w")


def read(name):
    return pd.read_csv(paths.DATA / f"{name}.csv", dtype=str, keep_default_na=False)


def wrong_literature(rows):
    """Say what is wrong with the table of the methods: one line each, none if all is well."""
    wrong = [f"{key}: the key is there twice" for key in rows["key"][rows["key"].duplicated()]]
    for row in rows.to_dict("records"):
        found = [f"{name} is missing" for name in ("key", "method", "year", "identifier", "source") if not row[name]]
        found += [f"{name} is {row[name]!r}" for name, words in WORDS.items() if row[name] not in words]
        if row["certainty"] == "read" and not PRIMARY.search(row["source"]):
            found.append("read, but no paper or repository is its source")
        if row["certainty"] != "recalled" and "recalled" in row["source"]:
            found.append(f"{row['certainty']}, but its source says recalled")
        for data in ACCURACIES:
            accuracy, network = row[f"{data}_accuracy_percent"], row[f"{data}_network"]
            if bool(accuracy) != bool(network):
                found.append(f"{data} has a network without an accuracy, or the other way round")
            if accuracy and not (re.fullmatch(r"\d+\.\d+", accuracy) and 0 < float(accuracy) < 100):
                found.append(f"{data} accuracy is {accuracy!r}")
            if accuracy and row["certainty"] == "recalled":
                found.append(f"{data} accuracy is from memory")
        if row["cifar10_accuracy_percent"] and not row["selection"]:
            found.append("an accuracy without a word on its selection")
        wrong += [f"{row['key']}: {text}" for text in found]
    return wrong


def wrong_compatibility(rows, keys, demos):
    """Say what is wrong with the table of the pairs."""
    pairs = rows.apply(lambda row: " + ".join(sorted((row["idea_a"], row["idea_b"]))), axis=1)
    wrong = [f"{pair}: it is there twice" for pair in pairs[pairs.duplicated()]]
    for pair, row in zip(pairs, rows.to_dict("records"), strict=True):
        found = [] if row["verdict"] in VERDICTS else [f"verdict is {row['verdict']!r}"]
        if row["idea_a"] == row["idea_b"] or not row["idea_a"] or not row["idea_b"]:
            found.append("not a pair")
        if not re.fullmatch(r"[A-Z][^.]+\.", row["why"]):
            found.append("why is not one sentence")
        evidence = row["evidence"].split("; ")
        for kind, _, name in (text.partition(":") for text in evidence):
            known = {"demo": demos, "cite": keys, "argument": {""}}.get(kind, set())
            if name not in known:
                found.append(f"evidence {kind}:{name} does not exist")
        if row["certainty"] != KINDS.get(evidence[0].partition(":")[0]):
            found.append(f"certainty is {row['certainty']!r}")
        wrong += [f"{pair}: {text}" for text in found]
    return wrong


def shown():
    """The names under which the review keeps what it has computed: demos["NAME"] = ..."""
    sources = [cell["source"] for cell in notebooks.read(REVIEW)["cells"] if cell["cell_type"] == "code"]
    return set(re.findall(r'^demos\["(\w+)"\] =', "\n".join(sources), re.M))


def prose():
    return "\n".join(cell["source"] for cell in notebooks.read(REVIEW)["cells"] if cell["cell_type"] == "markdown")


def percentages(text):
    """Every percentage with a decimal, as written: 92.55 of '92.55 %' and of '92.55%'."""
    return re.findall(r"(?<![\w.])(\d+\.\d+)\s?%", text.replace("\\", ""))


def strange_percentages(text, rows):
    """Percentages of a text that are no accuracy of the table."""
    known = {float(x) for data in ACCURACIES for x in rows[f"{data}_accuracy_percent"] if x}
    return [x for x in percentages(text) if float(x) not in known]


# --- the committed tables ---------------------------------------------------------------------------------------------


def test_every_method_says_where_it_comes_from():
    assert wrong_literature(read("literature")) == []


def test_every_pair_has_its_evidence():
    assert wrong_compatibility(read("compatibility"), set(read("literature")["key"]), shown()) == []


def test_every_demonstration_is_used():
    used = re.findall(r"demo:(\w+)", "\n".join(read("compatibility")["evidence"]))
    assert shown() - {"threshold"} == set(used)  # the threshold is what the others are about


def test_the_review_names_every_method_and_links_it():
    text = prose()
    for row in read("literature").to_dict("records"):
        kind, _, name = row["identifier"].partition(":")
        address = {
            "arXiv": "arxiv.org/abs/",
            "doi": "doi.org/",
            "openreview": "openreview.net/forum?id=",
            "github": "github.com/",
        }
        assert f"{address[kind]}{name})" in text, f"{row['method']} ({row['identifier']}) has no link in 01_review"


def test_accuracies_of_the_prose_are_those_of_the_table():
    assert strange_percentages(prose(), read("literature")) == []
    assert len(percentages(prose())) >= 3, "the search finds no percentage in the prose; is its pattern still right?"


# --- and the tests find what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ""}, "source is missing"),
        ({"certainty": ""}, "certainty is ''"),
        ({"certainty": "sure"}, "certainty is 'sure'"),
        ({"weights": "binray"}, "weights is 'binray'"),
        ({"activations": ""}, "activations is ''"),
        ({"selection": "train"}, "selection is 'train'"),
        ({"selection": ""}, "without a word on its selection"),
        ({"source": "a talk"}, "no paper or repository is its source"),
        ({"source": "arXiv:1602.02830; venue recalled"}, "its source says recalled"),
        ({"certainty": "recalled"}, "cifar10 accuracy is from memory"),
        ({"cifar10_accuracy_percent": "188.60"}, "cifar10 accuracy is '188.60'"),
        ({"mnist_accuracy_percent": "-1.0"}, "mnist accuracy is '-1.0'"),
        ({"mnist_accuracy_percent": "99"}, "mnist accuracy is '99'"),
        ({"cifar10_network": ""}, "cifar10 has a network without an accuracy, or"),
    ],
)
def test_a_damaged_method_is_named(changes, message):
    rows = read("literature")
    rows.loc[rows["key"] == "bnn", list(changes)] = list(changes.values())
    wrong = wrong_literature(rows)
    assert wrong and all(line.startswith("bnn: ") for line in wrong) and any(message in line for line in wrong)


def test_a_key_that_is_there_twice_is_named():
    rows = read("literature")
    assert wrong_literature(pd.concat([rows, rows[:1]])) == [f"{rows['key'][0]}: the key is there twice"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "good"}, "verdict is 'good'"),
        ({"why": ""}, "why is not one sentence"),
        ({"why": "One. Two."}, "why is not one sentence"),
        ({"evidence": "cite:nobody"}, "evidence cite:nobody does not exist"),
        ({"evidence": "demo:padding; demo:nothing"}, "evidence demo:nothing does not exist"),
        ({"evidence": "feeling"}, "evidence feeling: does not exist"),
        ({"certainty": "read"}, "certainty is 'read'"),
        ({"idea_b": "XNOR and count"}, "not a pair"),
    ],
)
def test_a_damaged_pair_is_named(changes, message):
    rows = read("compatibility")
    rows.loc[0, list(changes)] = list(changes.values())
    demos = set(re.findall(r"demo:(\w+)", "\n".join(read("compatibility")["evidence"])))
    found = wrong_compatibility(rows, set(read("literature")["key"]), demos)
    assert any(message in line for line in found)


def test_a_pair_that_is_there_twice_is_named():
    rows = read("compatibility")
    again = rows[:1].rename(columns={"idea_a": "idea_b", "idea_b": "idea_a"})
    assert any("it is there twice" in line for line in wrong_compatibility(pd.concat([rows, again]), set(), set()))


def test_a_strange_percentage_is_found():
    rows = read("literature")
    assert strange_percentages(r"88.60 % and 88.6\%, but 88.7 % and 9.9%, and 5 % of arXiv:1602.02830", rows) == [
        "88.7",
        "9.9",
    ]


def test_only_what_is_computed_counts_as_shown(tmp_path, monkeypatch):
    cells = [
        {"cell_type": "markdown", "source": ['demos["said"] = 1']},
        {"cell_type": "code", "source": ['demos["done"] = 1']},
    ]
    review = tmp_path / "01_review.ipynb"
    review.write_text(json.dumps({"cells": cells}))
    monkeypatch.setitem(globals(), "REVIEW", review)
    assert shown() == {"done"}
