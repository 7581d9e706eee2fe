"""Real data, where this machine has some, and tiny datasets where it has none."""

import os
from pathlib import Path

import numpy as np
import pytest

from lth_jax.data import Dataset

from .fake_data import cifar_files, random_images


@pytest.fixture(scope="session")
def real_data_dir():
    """A folder with MNIST prepared by TFDS."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or "does-not-exist")
    if not (folder / "mnist" / "3.0.1" / "dataset_info.json").is_file():
        pytest.skip("needs TFDS_DATA_DIR with mnist/3.0.1 prepared")
    return folder


@pytest.fixture(scope="session")
def real_archives():
    """A folder with the original archives of MNIST and Fashion-MNIST, in a folder each."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or "does-not-exist").parent / "manual"
    if not (folder / "fashion_mnist" / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("needs the original archives in `manual` beside TFDS_DATA_DIR")
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Every request goes to a proxy where nobody listens."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def tiny():
    """A dataset of 6 and 4 examples."""
    return tiny_dataset("tiny")


def tiny_dataset(name, seed=0):
    random = np.random.default_rng(seed)
    return Dataset(
        name=name,
        train_images=random.integers(0, 256, (6, 5, 5, 1), np.uint8),
        train_labels=np.arange(6, dtype=np.int32) % 3,
        test_images=random.integers(0, 256, (4, 5, 5, 1), np.uint8),
        test_labels=np.arange(4, dtype=np.int32) % 3,
        num_classes=3,
        scale=1 / 255,
        origin="made up",
    )


@pytest.fixture
def cifar10_files():
    """What an archive of 20 and 3 random images holds."""
    return cifar_files("cifar10", random_images("cifar10", 20), random_images("cifar10", 3, seed=1))
