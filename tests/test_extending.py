"""What is added from outside, or as one line of the studies, is known to everything that reads it.

The worked examples of CONTRIBUTING.md run here word for word.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import pictures
from torch import nn

import bnnlib
from bnnlib import ModelSpec, RunSpec, TrainSpec, UserError, binarize, build, paths, specs, studies
from bnnlib.analysis import ladder, tuning
from bnnlib.data import SOURCES, load
from bnnlib.energy import profile
from bnnlib.nn import quantizers
from bnnlib.packed import PackedNet, pack, save
from bnnlib.packed import load as load_packed
from bnnlib.report import refresh
from bnnlib.specs import Arch, Layer
from bnnlib.studies import results
from bnnlib.training.loop import train


def triangle(x):
    return (1 - x.abs()).clamp(min=0)


CONTRIBUTING = (paths.ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = {
    name: body
    for body in re.findall(r"^```(?:python|text)\n(.*?)^```$", CONTRIBUTING, re.M | re.S)
    for name in re.findall(r"^(?:# (\w+\.py)|activation,)", body)[:1]
}


def run(name: str) -> dict:
    """The names that an example of CONTRIBUTING leaves behind, once it has run."""
    names: dict = {}
    exec(compile(EXAMPLES[name], name, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """What is registered is what it was, after the test."""
    lists, tables = (specs.ESTIMATORS, specs.DATASETS), (quantizers.GRADIENTS, specs.ARCHS, SOURCES, studies.STUDIES)
    kept = [list(one) for one in lists], [dict(one) for one in tables]
    yield
    for one, before in zip(lists, kept[0], strict=True):
        one[:] = before
    for one, before in zip(tables, kept[1], strict=True):
        one.clear()
        one.update(before)


def test_there_are_six_worked_examples():
    assert list(EXAMPLES) == ["estimator.py", "architecture.py", "dataset.py", "study.py", "", "page.py"]


def test_the_example_of_an_architecture_is_built_trained_costed_packed_and_exported(tmp_path, capsys):
    spec = run("architecture.py")["spec"]
    assert capsys.readouterr().out == f"{bnnlib.energy_uj(spec):.4f} uJ\n"
    assert profile(spec)["macs"].tolist() == [28 * 28 * 25 * 16, 14 * 14 * 16 * 64, 64 * 10]
    outcome = train(RunSpec(spec, TrainSpec("digits", 1, batch=50, train_images=100), 0))
    images = pictures(20, 1, 28, 28)
    packed = PackedNet(load_packed(save(pack(outcome.model, spec), tmp_path / "small.safetensors")))
    assert packed.predict(images).tolist() == outcome.model(images).argmax(1).tolist()
    assert bnnlib.export_onnx(outcome.model, tmp_path / "small.onnx").stat().st_size


@pytest.mark.parametrize(
    "name, layers, said",
    [
        ("lenet5", (Layer("a", 4, kernel=3), Layer("b", 10)), "'lenet5' is there already"),
        ("one", (Layer("a", 10),), "use two or more"),
        ("twice", (Layer("a", 4, kernel=3), Layer("a", 10)), "named apart"),
        ("backwards", (Layer("a", 4), Layer("b", 10, kernel=3)), "convolutions, then fully connected"),
        ("no-logits", (Layer("a", 4, kernel=3), Layer("b", 10, kernel=3)), "convolutions, then fully connected"),
        ("taken", (Layer("norm1", 4, kernel=3), Layer("b", 10)), "calls a layer 'norm1'"),
        ("dotted", (Layer("a.b", 4, kernel=3), Layer("b", 10)), "calls a layer 'a.b'"),
        ("pooled", (Layer("a", 4, kernel=3), Layer("b", 10, pool=True)), "it has no pool"),
        ("nothing-left", (Layer("a", 4, kernel=9), Layer("b", 10)), "a of architecture 'nothing-left' leaves no pixel"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(name, layers, said):
    with pytest.raises(UserError, match=said):
        bnnlib.register_architecture(name, Arch((1, 8, 8), False, False, layers))
    assert name == "lenet5" or name not in specs.ARCHS


@pytest.mark.parametrize("form", specs.PLANES)
def test_a_convolution_of_a_single_pixel_is_costed_as_it_is_executed(form):
    layers = (Layer("a", 4, kernel=4), Layer("b", 6, kernel=1), Layer("c", 10))
    bnnlib.register_architecture("pixel", Arch((1, 4, 4), False, False, layers))
    spec = ModelSpec("pixel", "bbb", "bb", act_planes=form)
    pd.testing.assert_frame_equal(profile(spec), profile(build(spec)))


def test_the_example_of_a_data_set_is_found_checked_and_trained_on(tmp_path, monkeypatch, bnn):
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    labels = np.arange(300) % 10
    for part, count in (("train", 300), ("test", 60)):
        images = np.random.default_rng(count).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        np.savez(tmp_path / f"mine-{part}.npz", images=images, labels=labels[:count])
    training = run("dataset.py")["training"]
    found = load("mine", (1, 28, 28))
    assert [len(x) for x in (found.train_x, found.val_x, found.test_x)] == [200, 100, 60]
    assert train(RunSpec(ModelSpec("lenet5", "bbbb", "bbb"), training.but(epochs=1), 0)).data_checksum == found.checksum
    assert "mine: complete" in bnn("data", "check")[1]
    with pytest.raises(UserError, match=r"'mine' has images .* use cifar10, svhn, digits"):
        load("mine", (3, 32, 32))
    with pytest.raises(UserError, match="'mine' is there already"):
        run("dataset.py")


def test_the_example_of_a_study_is_listed_trained_and_summarised(tmp_path, monkeypatch, bnn):
    for variable in ("RESULTS", "CHECKPOINTS"):
        monkeypatch.setenv(f"BNN_{variable}", str(tmp_path / variable))
    run("study.py")
    assert len(bnn("runs", "--study", "widths", "--missing")[1].splitlines()) == 4
    assert bnn("train", "widths", "--name", "half", "--seed", "1")[0] == 0
    assert len(bnn("runs", "--study", "widths", "--missing")[1].splitlines()) == 3
    (row,) = results.summary(results.load_results("widths")).itertuples()
    assert row.network == "half" and row.n == 1


def test_the_example_of_an_energy_table_is_costed(tmp_path, monkeypatch, bnn):
    monkeypatch.setattr(paths, "ENERGY", tmp_path)
    (tmp_path / "mine.csv").write_text(EXAMPLES[""])
    status, out, _ = bnn("cost", "lenet5", "--table", "mine", "--json")
    macs = profile(ModelSpec("lenet5", "bbbb", "bbb"))["macs"]
    assert status == 0 and json.loads(out)["total_uj"] == pytest.approx((30 * macs[0] + 2.5 * macs[1:].sum()) * 1e-9)


@pytest.mark.slow
def test_the_example_of_a_notebook_keeps_the_rules(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    (tmp_path / "10_your_network.ipynb").write_text((paths.ROOT / "notebooks" / "10_your_network.ipynb").read_text())
    run("page.py")
    (outcome,) = refresh.refresh(["11"], progress=False)
    assert not outcome.error
    assert refresh.check(tmp_path / "11_half_the_width.ipynb") == []


def test_a_registered_estimator_is_used_in_specs_and_in_networks_of_ones_own():
    with pytest.raises(UserError, match="estimator 'triangle' is unknown"):
        ModelSpec("lenet5", "bbbb", "bbb", estimator="triangle")
    run("estimator.py")
    x = torch.linspace(-2, 2, 41, requires_grad=True)
    quantizers.estimate(x, quantizers.binary(x.detach()), "triangle").sum().backward()
    assert torch.equal(x.grad, triangle(x.detach()))
    spec = ModelSpec("lenet5", "bbbb", "btb", estimator="triangle")
    assert build(spec).eval()(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape == (1, 10)
    outcome = train(RunSpec(spec, TrainSpec("digits", 1, batch=50, train_images=100), 0))
    assert 0 <= outcome.test_accuracy <= 100
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    acts = [
        m.estimator for m in binarize(own, image=(1, 8, 8), estimator="triangle").modules() if hasattr(m, "estimator")
    ]
    assert acts and set(acts) == {"triangle"}


@pytest.mark.parametrize(
    "name, gradient, said",
    [
        ("clip", triangle, "'clip' is there already"),
        ("shorter", lambda x: x[1:], "does not give a finite gradient of the shape"),
        ("wider", lambda x: x.double(), "does not give a finite gradient of the shape"),
        ("open", lambda x: 1 / x, "does not give a finite gradient"),
    ],
)
def test_an_estimator_that_cannot_be_is_refused(name, gradient, said):
    with pytest.raises(UserError, match=said):
        bnnlib.register_estimator(name, gradient)


def test_a_network_that_a_study_gets_is_in_its_tables():
    bnnlib.register_estimator("triangle", triangle)
    for name, table in (("tuning-mnist", tuning.decisions), ("beyond-mnist", ladder.ladder)):
        study = studies.STUDIES[name]
        changed = ModelSpec("lenet5", "bbbb", "bbb", estimator="triangle")
        studies.STUDIES[name] = replace(study, networks=study.networks | {"triangle": changed})
        try:
            rows = table(name)
        finally:
            studies.STUDIES[name] = study
        assert rows.loc["triangle", "n"] == 0
        assert rows.loc["triangle", "command"] == f"bnn train {name} --name triangle-short"
