"""What is added from outside, or as one line of the studies, is known to everything that reads it."""

import pytest
import torch
from torch import nn

import bnnlib
from bnnlib import ModelSpec, RunSpec, TrainSpec, UserError, binarize, build, specs, studies
from bnnlib.analysis import ladder, tuning
from bnnlib.nn import quantizers
from bnnlib.training.loop import train


def triangle(x):
    return (1 - x.abs()).clamp(min=0)


@pytest.fixture
def estimators(monkeypatch):
    """The lists of estimators are what they were, after the test."""
    names, gradients = list(specs.ESTIMATORS), dict(quantizers.GRADIENTS)
    yield
    specs.ESTIMATORS[:] = names
    quantizers.GRADIENTS.clear()
    quantizers.GRADIENTS.update(gradients)


def test_a_registered_estimator_is_used_in_specs_and_in_networks_of_ones_own(estimators):
    with pytest.raises(UserError, match="estimator 'triangle' is unknown"):
        ModelSpec("lenet5", "bbbb", "bbb", estimator="triangle")
    bnnlib.register_estimator("triangle", triangle)
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
def test_an_estimator_that_cannot_be_is_refused(estimators, name, gradient, said):
    with pytest.raises(UserError, match=said):
        bnnlib.register_estimator(name, gradient)


def test_a_network_that_a_study_gets_is_in_its_tables(estimators):
    bnnlib.register_estimator("triangle", triangle)
    for name, table in (("tuning-mnist", tuning.decisions), ("beyond-mnist", ladder.ladder)):
        study = studies.STUDIES[name]
        changed = ModelSpec("lenet5", "bbbb", "bbb", estimator="triangle")
        studies.STUDIES[name] = studies.Study(study.networks | {"triangle": changed}, study.protocols, study.changes)
        try:
            rows = table(name)
        finally:
            studies.STUDIES[name] = study
        assert rows.loc["triangle", "n"] == 0
        assert rows.loc["triangle", "command"] == f"bnn train {name} --name triangle-short"
