"""Data: verified before it is read, split as in the paper, augmented as a plain loop would."""

import gzip
import hashlib
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets

from bnnlib import TrainSpec, UserError, data
from bnnlib.data import load, verify
from bnnlib.training.augment import augment, batches


def idx(array: np.ndarray) -> bytes:
    """MNIST's file format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A small MNIST with files and md5 sums of its own; gives its folder."""
    rng, raw = np.random.default_rng(0), tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    content = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (50, 28, 28)), "train-labels-idx1-ubyte": np.arange(50) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (20, 28, 28)), "t10k-labels-idx1-ubyte": np.arange(20) % 10,
    }  # fmt: skip
    sums = []
    for name, array in content.items():
        archive = gzip.compress(idx(array), mtime=0)
        (raw / f"{name}.gz").write_bytes(archive)
        sums.append((f"{name}.gz", hashlib.md5(archive).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    monkeypatch.setitem(data.SOURCES, "mnist", replace(data.SOURCES["mnist"], validation=10))
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing is fetched in a test
    return raw


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mnist_is_read_and_split_in_order(mnist):
    d = load("mnist", (1, 28, 28))
    assert [len(part) for part in (d.train_x, d.val_x, d.test_x)] == [40, 10, 20]
    assert d.train_x.dtype == torch.uint8 and d.train_x.shape[1:] == (1, 28, 28) and d.train_y.dtype == torch.int64
    raw = np.frombuffer((mnist / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(50, 1, 28, 28)
    assert np.array_equal(torch.cat([d.train_x, d.val_x]).numpy(), raw)
    assert d.val_y.tolist() == list(range(10))


def test_a_missing_file_is_named_with_the_command(mnist):
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError) as caught:
        load("mnist")
    text = one_line(caught)
    assert str(mnist / "t10k-labels-idx1-ubyte.gz") in text and "`bnn data get mnist`" in text and "BNN_DATA" in text


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: raw[:50] + b"x" + raw[51:], lambda raw: b""])
def test_a_damaged_file_is_named_before_it_is_read(mnist, damage):
    path = mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        load("mnist")
    assert str(path) in one_line(caught) and "damaged (md5" in str(caught.value)


def test_a_changed_unpacked_file_is_restored(mnist):
    before = load("mnist").checksum
    (mnist / "train-labels-idx1-ubyte").write_bytes(b"nonsense")
    assert load("mnist").checksum == before


def test_get_says_in_one_line_that_there_is_no_network(mnist):
    (mnist / "train-labels-idx1-ubyte").write_bytes(b"unpacked, but without its archive")
    (mnist / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError) as caught:
        data.get("mnist")
    assert "cannot download mnist" in one_line(caught)
    assert not (mnist / "train-labels-idx1-ubyte").exists(), "torchvision would take it for the download"


def test_get_leaves_a_whole_data_set_alone(mnist):
    data.get("mnist")
    verify("mnist")


def test_no_pickle_is_opened_before_its_md5_is_right(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for path in data.expected_files("cifar10"):
        (folder / path.name).write_bytes(pickle.dumps({"data": [], "labels": []}))
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("unverified bytes were unpickled"))
    with pytest.raises(UserError, match="data_batch_1 is damaged"):
        load("cifar10")


def test_real_mnist_is_split_as_in_the_paper():
    try:
        verify("mnist")
    except UserError as error:
        pytest.skip(str(error))
    d = load("mnist")
    assert [len(part) for part in (d.train_x, d.val_x, d.test_x)] == [50_000, 10_000, 10_000]


def test_unknown_and_unfitting_data_sets_are_named(mnist):
    with pytest.raises(UserError, match="'imagenet' is unknown"):
        load("imagenet")
    with pytest.raises(UserError, match=r"images \(1, 28, 28\), the network takes \(3, 32, 32\); use cifar10"):
        load("mnist", (3, 32, 32))


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 32)])
def test_digits_fit_any_network_and_need_no_file(image, monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    d = load("digits", image)
    assert d.train_x.shape == (1197, *image) and len(d.val_x) == len(d.test_x) == 300
    assert d.checksum == load("digits", image).checksum
    assert d.train_x.min() == 0 and d.train_x.max() > 230
    assert (torch.bincount(d.test_y) > 15).all() and not list(tmp_path.iterdir())
    every = torch.cat([d.train_x, d.val_x, d.test_x]).flatten(1)
    assert len(every.unique(dim=0)) > 1790, "splits overlap"


@given(pad=st.integers(0, 5), flip=st.booleans(), seed=st.integers(0, 1000), channels=st.sampled_from([1, 3]))
def test_augmentation_against_a_plain_loop(pad, flip, seed, channels):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (6, channels, 9, 7), dtype=torch.uint8, generator=g)
    draws = torch.randint(0, 2**31, (3, 6), generator=g)
    ours = augment(x, draws, pad, flip)
    assert ours.dtype == torch.uint8
    for image, (a, b, c), result in zip(x.numpy(), draws.T.tolist(), ours.numpy(), strict=True):
        down, right = a % (2 * pad + 1), b % (2 * pad + 1)
        large = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), "edge")
        cut = large[:, down : down + 9, right : right + 7]
        assert np.array_equal(result, cut[:, :, ::-1] if flip and c % 2 else cut)


def test_batches_are_seeded_and_show_each_image_at_most_once():
    x = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    y, spec = torch.arange(50), TrainSpec("mnist", 1, batch=8, augment="crop")

    def epoch(generator):
        return [(a.clone(), b.clone()) for a, b in batches(x, y, spec, generator)]

    generator = torch.Generator().manual_seed(3)
    first, second = epoch(generator), epoch(generator)
    again = epoch(torch.Generator().manual_seed(3))
    labels = torch.cat([b for _, b in first])
    assert len(first) == 6 and len(labels.unique()) == 48, "a last smaller batch is dropped"
    assert all((a[:, 0, 0, 0] == b).all() for a, b in first), "images and labels no longer belong together"
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, again, strict=True))
    assert not torch.equal(labels, torch.cat([b for _, b in second]))
