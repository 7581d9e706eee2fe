"""Datasets from their original archives: checked, and prepared as TFDS would, without it."""

import sys

import numpy as np
import pytest

from lth_jax.data import Dataset, archives, load, tfds_files
from lth_jax.data.archive_formats import IDX_ARCHIVES, read_idx
from lth_jax.data.archives import SOURCES
from lth_jax.data.directories import resolve
from lth_jax.errors import DataError

from .fake_data import (
    archive_names,
    cifar_files,
    multiset,
    random_images,
    trust,
    write_archives,
    write_tar,
)
from .test_loaded import assert_golden

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")


def directories(folder, **others):
    return {"data_dir": str(folder / "data"), "cache_dir": str(folder / "cache"), **others}


# --- Preparing ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_archives_in_a_manual_folder_are_prepared_as_tfds_would(name, tmp_path, monkeypatch):
    """Under TFDS's own name, version and features, so that its builder reads them."""
    import tensorflow_datasets as tfds

    train, test = random_images(name, 120), random_images(name, 110, seed=1)
    manual = tmp_path / "manual" / name  # of one dataset; the next test has them side by side
    write_archives(manual, name, train, test)
    trust(monkeypatch, name, manual)
    dataset = load(name, **directories(tmp_path, manual_dir=str(tmp_path / "manual")))
    assert dataset.num_classes == SOURCES[name].facts.classes

    stock = tfds.builder(name, data_dir=tmp_path / "data")
    assert stock.is_prepared()
    assert (tmp_path / "data" / name / SOURCES[name].version).is_dir()
    source = stock.as_data_source("train")
    assert len(source) == len(dataset.train_labels) == 120
    order = []
    for position in range(0, 120, 7):
        example, image = source[position], dataset.train_images[position]
        np.testing.assert_array_equal(example["image"], image)
        assert example["label"] == dataset.train_labels[position]
        (index,) = np.flatnonzero((train[0] == image).all((1, 2, 3)))
        assert example["label"] == train[1][index]
        if "id" in example:
            assert example["id"] == f"train_{index:05d}".encode()
        if "coarse_label" in example:
            assert example["coarse_label"] == train[1][index] % 10
        order.append(int(index))
    assert order != sorted(order)  # TFDS shuffles
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", SOURCES)
def test_our_builders_declare_what_the_stock_ones_do(name, tmp_path):
    import tensorflow_datasets as tfds

    from lth_jax.data import tfds_builders

    ours, stock = tfds_builders.from_archives(name, tmp_path), tfds.builder(name, data_dir=tmp_path)
    assert ours.info.full_name == stock.info.full_name
    assert ours.info.features.to_json() == stock.info.features.to_json()
    assert ours.info.supervised_keys == stock.info.supervised_keys
    assert ours.info.features["label"].names == stock.info.features["label"].names
    assert (ours.SOURCE, ours.name) == (SOURCES[name], name)


def test_the_checksums_are_those_that_tfds_records():
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    for name, source in SOURCES.items():
        known = checksums.load_url_infos(tfds.core.tfds_path("url_checksums") / f"{name}.txt")
        for file, (size, sha256) in source.archives.items():
            info = known[source.url + file]
            assert (info.size, info.checksum) == (size, sha256)


def test_a_data_dir_that_cannot_be_written_is_passed_over_for_the_cache_dir(
    tmp_path, monkeypatch, no_network
):
    manual = tmp_path / "archives"  # the archives themselves, not a folder of datasets'
    train, test = random_images("mnist", 12), random_images("mnist", 5)
    write_archives(manual, "mnist", train, test)
    trust(monkeypatch, "mnist", manual)
    (tmp_path / "file").write_text("")
    folders = {"data_dir": str(tmp_path / "file"), "cache_dir": str(tmp_path / "cache")}
    dataset = load("mnist", manual_dir=str(manual), **folders)
    assert sorted(dataset.train_labels.tolist()) == sorted(train[1].tolist())
    assert (tmp_path / "cache" / "tfds" / "mnist" / "3.0.1").is_dir()


def test_an_archive_of_other_contents_ends_in_one_line(tmp_path, monkeypatch, cifar10_files):
    cifar10_files["cifar-10-batches-bin/batches.meta.txt"] = b"cat\ndog\n"
    write_tar(tmp_path / archive_names("cifar10")[0], cifar10_files)
    trust(monkeypatch, "cifar10", tmp_path)
    with pytest.raises(DataError, match="cifar10 cannot be prepared") as error:
        load("cifar10", **directories(tmp_path, manual_dir=str(tmp_path)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data" / "cifar10" / "3.0.2").exists()


def test_examples_that_are_not_cifar10_s_are_refused(tmp_path, monkeypatch):
    train, test = random_images("cifar10", 20), random_images("cifar10", 10)
    write_archives(tmp_path, "cifar10", train, test)
    trust(monkeypatch, "cifar10", tmp_path, train=20, test=10)
    with pytest.raises(DataError, match="is not cifar10: its examples are others"):
        load("cifar10", **directories(tmp_path, manual_dir=str(tmp_path)))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_archives_with_other_checksums_are_named_and_not_used(name, tmp_path, no_network):
    write_archives(tmp_path, name, random_images(name, 20), random_images(name, 5))
    with pytest.raises(DataError, match="damaged or of another dataset") as error:
        load(name, **directories(tmp_path, manual_dir=str(tmp_path)))
    assert archive_names(name)[0] in str(error.value)


# --- Real data ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_original_archives_hold_the_dataset(name, real_archives):
    directories = resolve(manual_dir=str(real_archives))
    assert archives.find(name, directories) == (real_archives / name, "")
    assert_golden(in_archives(name, real_archives))


def in_archives(name, folder):
    """The dataset as its idx files have it."""
    arrays = [read_idx(folder / name / file) for file in IDX_ARCHIVES]
    for index, array in enumerate(arrays):
        arrays[index] = array[..., None] if array.ndim == 3 else array.astype(np.int32)
    scale, origin = 1 / 255, "archives"
    return Dataset(name, *arrays, num_classes=10, scale=scale, origin=origin)


@pytest.mark.slow
def test_mnist_and_fashion_mnist_of_one_data_dir_are_not_mixed_up(
    real_archives, real_data_dir, tmp_path, monkeypatch, no_network
):
    """Of their first examples, which need not minutes to be prepared."""
    import tensorflow_datasets as tfds

    firsts = {}
    for name in ("mnist", "fashion_mnist"):
        whole = in_archives(name, real_archives)
        train = whole.train_images[:1500], whole.train_labels[:1500].astype(np.uint8)
        test = whole.test_images[:300], whole.test_labels[:300].astype(np.uint8)
        write_archives(tmp_path / "manual" / name, name, train, test)
        trust(monkeypatch, name, tmp_path / "manual" / name)
        firsts[name] = multiset(*train), multiset(*test)
    folders = directories(tmp_path, manual_dir=str(tmp_path / "manual"))
    mnist, fashion = load("mnist", **folders), load("fashion_mnist", **folders)
    # In the very order of TFDS's own preparation, and readable by its own builders.
    stock = load("mnist", data_dir=str(real_data_dir), cache_dir=str(tmp_path / "other"))
    ours = {image.tobytes() for image in mnist.train_images}
    order = [index for index, image in enumerate(stock.train_images) if image.tobytes() in ours]
    np.testing.assert_array_equal(mnist.train_images, stock.train_images[order])
    np.testing.assert_array_equal(mnist.train_labels, stock.train_labels[order])
    for dataset in (mnist, fashion):
        train = multiset(dataset.train_images, dataset.train_labels)
        test = multiset(dataset.test_images, dataset.test_labels)
        assert (train, test) == firsts[dataset.name]
        builder = tfds.builder(dataset.name, data_dir=tmp_path / "data")
        assert builder.is_prepared()
        example = builder.as_data_source("test")[123]
        np.testing.assert_array_equal(example["image"], dataset.test_images[123])
        assert example["label"] == dataset.test_labels[123]
    assert builder.info.features["label"].names[0] == "T-shirt/top"


def test_missing_archives_are_named(real_archives, tmp_path, no_network):
    folder = tmp_path / "manual" / "mnist"
    folder.mkdir(parents=True)
    for file in IDX_ARCHIVES[1:]:
        (folder / file).symlink_to(real_archives / "mnist" / file)
    with pytest.raises(DataError, match=rf"{folder} lacks train-images-idx3-ubyte.gz\)"):
        load("mnist", **directories(tmp_path, manual_dir=str(folder.parent)))


@pytest.mark.slow
def test_cifar10_packed_as_its_archive_comes_out_as_tfds_prepared_it(
    real_data_dir, tmp_path, monkeypatch
):
    """Of the first examples of the archive, by their `id`: images, order, names and features."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    real = tfds.builder("cifar10", data_dir=real_data_dir)
    if not real.is_prepared():
        pytest.skip("needs TFDS_DATA_DIR with cifar10/3.0.2 prepared")
    features = tfds_files.features_of("cifar10", real.info)
    parts, counts = {}, {"train": 1500, "test": 300}
    for split, count in counts.items():
        found = []
        for record in tfds_files._records(real, split):
            feature = tf_example_pb2.Example.FromString(record).features.feature["id"]
            number = int(feature.bytes_list.value[0][-5:])
            if number < count:
                found.append((number, *tfds_files._decode(record, features)))
        numbers, images, labels = (np.array(part) for part in zip(*found, strict=True))
        rank = np.argsort(numbers)
        parts[split] = (images, labels, images[rank], labels[rank].astype(np.uint8))
    names = real.info.features["label"].names
    files = cifar_files("cifar10", parts["train"][2:], parts["test"][2:], label_names=names)
    write_tar(tmp_path / archive_names("cifar10")[0], files)
    trust(monkeypatch, "cifar10", tmp_path)
    ours = load("cifar10", **directories(tmp_path, manual_dir=str(tmp_path)))
    for split, (images, labels, *_) in parts.items():
        np.testing.assert_array_equal(getattr(ours, f"{split}_images"), images)
        np.testing.assert_array_equal(getattr(ours, f"{split}_labels"), labels)
    for file in ("features.json", "label.labels.txt"):
        written = (tmp_path / "data" / "cifar10" / "3.0.2" / file).read_text()
        assert written == (real_data_dir / "cifar10" / "3.0.2" / file).read_text()
