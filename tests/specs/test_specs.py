"""Specs: equal specs have one hash, different ones different hashes, and every mistake is named in one line."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnlib import ModelSpec, RunSpec, TrainSpec, UserError, studies
from bnnlib.operands import OPERANDS
from bnnlib.specs import ESTIMATORS

codes = st.sampled_from(list(OPERANDS))
models = st.builds(
    ModelSpec,
    arch=st.just("lenet5"),
    weights=st.text(codes, min_size=4, max_size=4),
    acts=st.text(codes, min_size=3, max_size=3),
    width=st.integers(1, 8),
    order=st.sampled_from(["CPBA", "CBAP"]),
    estimator=st.sampled_from(ESTIMATORS),
    bias=st.booleans(),
    ternary_threshold=st.sampled_from(["estimator", "input"]),
)
GOOD = ModelSpec("lenet5", "tbbb", "btb")
TRAIN = TrainSpec("mnist", 10)


@given(one=models, other=models)
def test_hash_tells_specs_apart(one, other):
    assert (one == other) == (one.hash == other.hash)
    again = ModelSpec.from_dict(dict(reversed(list(one.as_dict().items()))))
    assert again == one and again.hash == one.hash


CHANGES = {
    ModelSpec: {
        "arch": None, "weights": "bbbb", "acts": "tbb", "width": 2, "order": "CBAP", "estimator": "bireal",
        "swish_beta": 5.0, "image": "b", "norm": False, "last_norm": False, "extra_norm": True, "conv_relu": True,
        "bias": True, "ternary_acts": "batch", "weight_scale": "filter", "act_planes": "xnor",
        "balance": True, "ternary_threshold": "input",
    },
    TrainSpec: {
        "dataset": "digits", "epochs": 11, "batch": 51, "optimizer": "sgd", "lr": 0.5, "momentum": 0.8,
        "schedule": "step", "milestones": (3,), "gamma": 0.2, "warmup": 1, "schedule_epochs": 12, "weight_decay": 1e-4,
        "bipolar": 1e-6, "loss": "squared_hinge", "clip_latent": False, "augment": "crop", "pad": 2,
        "train_images": 100, "pretrain_epochs": 3, "label_smoothing": 0.1, "logit_scale": 2, "teacher": None,
        "distill": None, "average": 0.9, "stages": "bits", "bop_gamma": 0.1, "bop_threshold": 0.1, "cutout": 4,
        "gradient_bits": 8, "norm_bias_rate": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("spec", [GOOD, TRAIN], ids=["model", "train"])
def test_every_field_is_in_the_hash(spec):
    changes = CHANGES[type(spec)]
    assert set(changes) == {f.name for f in dataclasses.fields(spec)}
    hashes = {spec.but(**{name: value}).hash for name, value in changes.items() if value is not None}
    assert len(hashes | {spec.hash}) == 1 + sum(value is not None for value in changes.values())


def test_a_teacher_is_in_the_hash_by_what_it_says():
    taught = TRAIN.but(teacher=TRAIN, distill=0.5)
    others = [taught.but(distill=0.6), taught.but(teacher=TRAIN.but(epochs=11)), TRAIN]
    assert len({spec.hash for spec in [taught, *others]}) == 4
    assert taught.as_dict()["teacher"] == TRAIN.as_dict()  # fields that came later are left out here too


# before there was a choice of ternary_threshold: every network had that of ``input``
HASHES = {
    ModelSpec("lenet5", "ffff", "fff"): "3c4a960e21f7",
    ModelSpec("lenet5", "tbbb", "bbb"): "4bfdfca9c3dd",
    ModelSpec("lenet5", "tbbb", "bbb", balance=True): "07b6448a8da0",
    ModelSpec("lenet5", "tttt", "ttt", ternary_threshold="input"): "e4ee43857827",
    ModelSpec("lenet5", "tbbt", "tbt", ternary_threshold="input"): "e20bf8646df4",
    ModelSpec("vggnet7", "t" * 9, "t" * 8, 1 / 8, ternary_threshold="input"): "de6d67acaaa9",
    ModelSpec(
        "lenet5", "bbbb", "ttt", estimator="bireal", ternary_acts="batch", ternary_threshold="input"
    ): "1d926c3be8a1",
}  # fmt: skip
RUNS = {
    ("lenet-mnist", "binary-short"): "bc3a3d737ac0",
    ("choices-mnist", "tttt-ttt-brief"): "b461083d0fd2",
    ("comparators-mnist", "TBN-short"): "b6c27e5e7109",
    ("vggnet-cifar10", "TERN5-reduced"): "8b6f20025b86",
}


def test_old_networks_keep_their_hashes():
    assert {spec: spec.hash for spec in HASHES} == HASHES
    assert {key: studies.runs(*key, seed=0)[0].hash for key in RUNS} == RUNS


@given(one=models)
def test_the_threshold_counts_only_where_an_activation_is_ternary(one):
    kept, changed = one.but(ternary_threshold="input"), one.but(ternary_threshold="estimator")
    assert "ternary_threshold" not in kept.as_dict()
    assert (kept.hash != changed.hash) == (kept != changed) == ("t" in one.acts)
    assert ("ternary_threshold" in changed.as_dict()) == ("t" in one.acts)
    binary = one.but(acts="bbb")
    assert binary.but(acts="btb") == changed.but(acts="btb"), "a network without a threshold has left one behind"


def test_networks_of_the_capacity_studies_have_the_releases_threshold_and_tbn_its_own():
    """Studies that only compare networks with one another keep the threshold of their committed results."""
    for key in (("vggnet-cifar10", None, "sitting"), ("lenet-mnist", None, "short")):
        chosen = [run.model for run in studies.runs(*key) if "t" in run.model.acts]
        assert chosen and {model.ternary_threshold for model in chosen} == {"estimator"}
    for study in ("comparators-mnist", "comparators-cifar10"):
        assert {run.model.ternary_threshold for run in studies.runs(study, "TBN")} == {"input"}


def test_a_run_is_its_model_training_and_seed():
    run = RunSpec(GOOD, TRAIN, 0, "one", "a")
    assert run.hash == RunSpec(GOOD, TRAIN, 0, "two", "b").hash
    assert len({run.hash, run.but(seed=1).hash, run.but(model=GOOD.but(width=2)).hash}) == 3


def test_numbers_of_another_kind_are_one_spec():
    assert (
        TRAIN.but(lr=1).hash == TRAIN.but(lr=1.0).hash and GOOD.but(swish_beta=5).hash == GOOD.but(swish_beta=5.0).hash
    )


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.width = 2


MODEL_MISTAKES = [
    ({"arch": "resnet"}, "'resnet' is unknown; use one of 'lenet5', 'vggnet7'"),
    ({"weights": "xbbb"}, "'xbbb' has the unknown code 'x'"),
    ({"weights": "1bbb"}, "'1bbb' has the unknown code '1'"),
    ({"weights": "bbb"}, "'bbb' has 3 codes; lenet5 needs 4"),
    ({"weights": None}, "weights None is not a text"),
    ({"acts": "bbbb"}, "'bbbb' has 4 codes; lenet5 needs 3"),
    ({"width": 0}, "width 0 is not possible"),
    ({"width": 1.3}, "width 1.3"),
    ({"width": True}, "width True"),
    ({"order": "CBPA"}, "'CBPA'"),
    ({"estimator": "relu"}, "'relu' is unknown"),
    ({"swish_beta": 0}, "swish_beta 0"),
    ({"swish_beta": float("nan")}, "swish_beta nan"),
    ({"image": "t"}, "image 't'"),
    ({"ternary_acts": "fixed"}, "ternary_acts 'fixed'"),
    ({"ternary_threshold": "batch"}, "ternary_threshold 'batch' is unknown; use one of 'estimator', 'input'"),
    ({"norm": "no"}, "norm 'no'"),
    ({"norm": False, "extra_norm": True}, "extra_norm=True needs norm=True"),
]
TRAIN_MISTAKES = [
    ({"dataset": "imagenet"}, "'imagenet' is unknown"),
    ({"epochs": 0}, "epochs 0"),
    ({"batch": 1}, "batch 1"),
    ({"optimizer": "lion"}, "'lion'"),
    ({"schedule": "exponential"}, "'exponential'"),
    ({"loss": "mse"}, "'mse'"),
    ({"augment": "flip"}, "'flip'"),
    ({"lr": -1}, "lr -1"),
    ({"lr": float("inf")}, "lr inf"),
    ({"milestones": (1.5,)}, "milestones 1.5"),
    ({"schedule_epochs": 5}, "schedule_epochs 5 is too short"),
    ({"warmup": 10}, "warmup 10.0 leaves no epoch"),
    ({"clip_latent": 1}, "clip_latent 1"),
    ({"train_images": 0}, "train_images 0"),
    ({"pretrain_epochs": -1}, "pretrain_epochs -1"),
    ({"pretrain_epochs": 1, "warmup": 1}, "leaves no epoch for the cosine schedule; use fewer than 1"),
    ({"label_smoothing": 1.5}, "label_smoothing 1.5 is not possible; use a share"),
    ({"average": 1}, "average 1 is not possible; use a share"),
    ({"stages": "weights"}, "stages 'weights' is unknown"),
    ({"stages": "bits", "epochs": 3}, "epochs 3 leave none to the last of the stages; use 4 or more"),
    ({"cutout": 1.5}, "cutout 1.5"),
    ({"norm_bias_rate": -1}, "norm_bias_rate -1 is not possible"),
    ({"norm_bias_rate": 4, "optimizer": "bop"}, "norm_bias_rate 4.0 is not for 'bop'; use sgd, adam or adamw"),
    ({"distill": 0.5}, "distill 0.5 and teacher None need each other"),
    ({"teacher": TRAIN}, "need each other"),
    ({"teacher": TRAIN.but(dataset="digits"), "distill": 0.5}, "the teacher learns 'digits', its pupil 'mnist'"),
    ({"teacher": GOOD, "distill": 0.5}, "is no protocol of a float network"),
    ({"logit_scale": 2, "loss": "squared_hinge"}, "logit_scale is a change of the cross entropy"),
]


@pytest.mark.parametrize(
    "spec, change, named", [(GOOD, *m) for m in MODEL_MISTAKES] + [(TRAIN, *m) for m in TRAIN_MISTAKES]
)
def test_mistakes_are_named_in_one_line(spec, change, named):
    with pytest.raises(UserError) as caught:
        spec.but(**change)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_seed_is_named():
    with pytest.raises(UserError, match="seed -1"):
        RunSpec(GOOD, TRAIN, -1)


def test_studies_hold_the_papers_networks_and_seeds():
    lenet, vggnet = (studies.STUDIES[name] for name in ("lenet-mnist", "vggnet-cifar10"))
    assert (lenet.networks["TERN1"].weights, lenet.networks["TERN1"].acts) == ("tbbt", "tbt")
    assert (vggnet.networks["TERN4"].weights, vggnet.networks["TERN4"].acts) == ("tbbbbbbbt", "tbbbbbbt")
    assert {s.width for s in lenet.networks.values()} == {1, 2, 4, 8}
    assert len(studies.runs("lenet-mnist", "binary", "short")) == 5
    assert {run.train.epochs for run in studies.runs("vggnet-cifar10", protocol="paper")} == {500}
    assert {run.model.width for run in studies.runs("vggnet-cifar10", protocol="reduced")} == {1 / 8, 1 / 4, 1 / 2}
    for study in ("comparators-cifar10", "tuning-cifar10"):
        reduced = studies.runs(study, protocol="reduced")
        assert {run.network for run in reduced} == set(studies.STUDIES[study].networks)
        assert {(run.model.width, run.train.epochs) for run in reduced} == {(1 / 8, 5)}
    assert [run.train.bipolar for run in studies.runs("tuning-mnist", "bipolar-1e-6")] == [1e-6] * 3
    assert all(run.train.pretrain_epochs for run in studies.runs("tuning-cifar10", "PTRELU"))
    for name in studies.STUDIES:
        every = [(run.name, run.seed) for run in studies.runs(name)]
        assert len(every) == len(set(every))


@pytest.mark.parametrize(
    "arch, weights, acts, width, family",
    [
        ("lenet5", "ffff", "fff", 1, "float"), ("lenet5", "bbbb", "bbb", 1, "binary"),
        ("lenet5", "bbbb", "bbb", 2, "width"),
        ("lenet5", "8bb8", "bbb", 1, "first/last"), ("lenet5", "bbb8", "bbb", 1, "first/last"),
        ("lenet5", "8888", "888", 1, "fixed"), ("lenet5", "8bbb", "2bb", 1, "fixed"),
        ("lenet5", "bbbb", "bbt", 1, "ternary"),
        ("lenet5", "8bb8", "tbb", 2, "ternary"), ("vggnet7", "b" * 9, "b" * 7 + "t", 1, "ternary"),
    ],
)  # fmt: skip
def test_the_family_of_a_network_follows_from_its_letters(arch, weights, acts, width, family):
    assert studies.family(ModelSpec(arch, weights, acts, width)) == family


def test_the_families_of_the_studies_are_those_of_the_papers_names():
    for study in ("lenet-mnist", "vggnet-cifar10"):
        for name, model in studies.STUDIES[study].networks.items():
            named = name if name in ("float", "binary") else "first/last" if name.endswith("FP") else "ternary"
            assert studies.family(model) == ("width" if name.startswith("WIDEN") else named), name
