"""Prepared TFDS datasets: read as they are, or refused with a reason."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lth_jax.data import load, tfds_files
from lth_jax.data.archives import SOURCES
from lth_jax.data.dataset import check_labels
from lth_jax.errors import DataError

from .fake_data import as_tfrecord, examples, multiset, prepare


def expected(records):
    return sorted((record["label"], record["image"].tobytes()) for record in records)


def test_images_and_labels_are_read_as_they_were_written(tmp_path):
    train, test = examples(7), examples(4, seed=1)
    dataset = tfds_files.read("tiny", prepare(tmp_path, train=train, test=test))
    assert multiset(dataset.train_images, dataset.train_labels) == expected(train)
    assert multiset(dataset.test_images, dataset.test_labels) == expected(test)
    assert dataset.train_images.shape == (7, 5, 5, 1)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_labels.dtype == np.int32
    assert (dataset.num_classes, dataset.scale) == (3, 1 / 255)


def test_the_order_is_that_of_the_decoders_of_tfds(tmp_path):
    folder = prepare(tmp_path, train=examples(20), test=examples(4))
    source = tfds.builder_from_directory(folder).as_data_source("train")
    dataset = tfds_files.read("tiny", folder)
    np.testing.assert_array_equal(dataset.train_images, [e["image"] for e in source])
    np.testing.assert_array_equal(dataset.train_labels, [e["label"] for e in source])


def test_color_images_keep_their_channels_in_order(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(4, 6, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    train = examples(5, shape=(4, 6, 3))
    folder = prepare(tmp_path, train=train, test=examples(3, shape=(4, 6, 3)), features=features)
    dataset = tfds_files.read("tiny", folder)
    assert dataset.train_images.shape == (5, 4, 6, 3)
    assert multiset(dataset.train_images, dataset.train_labels) == expected(train)


def test_tfrecord_files_are_read_without_tensorflow(tmp_path):
    folder = prepare(tmp_path, train=examples(9), test=examples(4))
    before = tfds_files.read("tiny", folder)
    as_tfrecord(folder)
    after = tfds_files.read("tiny", folder)
    np.testing.assert_array_equal(after.train_images, before.train_images)
    np.testing.assert_array_equal(after.test_labels, before.test_labels)


def test_files_with_fewer_examples_than_promised_are_refused(tmp_path):
    folder = prepare(tmp_path, train=examples(9), test=examples(4))
    as_tfrecord(folder, drop=1)
    with pytest.raises(DataError, match="train holds 8 of 9 examples"):
        tfds_files.read("tiny", folder)


def test_labels_that_count_from_one_are_counted_from_zero_and_reported(tmp_path, caplog):
    features = {
        "image": tfds.features.Image(shape=(5, 5, 1)),
        "label": tfds.features.ClassLabel(num_classes=7),
    }
    train = examples(9, first=1)
    folder = prepare(tmp_path, train=train, test=examples(4, first=1), features=features)
    dataset = tfds_files.read("tiny", folder)
    assert dataset.num_classes == 3
    shifted = [(label - 1, image) for label, image in expected(train)]
    assert multiset(dataset.train_images, dataset.train_labels) == shifted
    assert "of 7 classes only 1 to 3 occur" in caplog.text


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
def test_labels_outside_the_classes_are_refused(labels):
    good, bad = np.array([0, 2], np.int32), np.array(labels, np.int32)
    assert check_labels("tiny", 3, good, good) == (0, 2)
    for parts in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match=r"^tiny has labels from .* accepted: 0 to 2$"):
            check_labels("tiny", 3, *parts)


def test_where_the_classes_are_known_a_missing_one_shifts_no_label(tmp_path, caplog):
    features = {
        "image": tfds.features.Image(shape=(5, 5, 1)),
        "label": tfds.features.ClassLabel(num_classes=7),
    }
    train = examples(9, first=1)
    folder = prepare(tmp_path, train=train, test=examples(4, first=1), features=features)
    dataset = tfds_files.read("tiny", folder, classes=5)
    assert dataset.num_classes == 5
    assert multiset(dataset.train_images, dataset.train_labels) == expected(train)
    assert not caplog.records
    with pytest.raises(DataError, match="tiny has labels from 1 to 3; accepted: 0 to 2"):
        tfds_files.read("tiny", folder, classes=3)


def test_images_of_any_size_are_refused(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(None, None, 1)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    folder = prepare(tmp_path, train=examples(3), test=examples(3), features=features)
    with pytest.raises(DataError, match="images of one size"):
        tfds_files.read("tiny", folder)


def test_a_dataset_without_labels_is_refused(tmp_path):
    folder = prepare(tmp_path, train=examples(3), test=examples(3), supervised=False)
    with pytest.raises(DataError, match="not an image classification dataset"):
        tfds_files.read("tiny", folder)


def test_a_dataset_without_a_test_split_is_refused(tmp_path):
    folder = prepare(tmp_path, train=examples(3), test=None)
    with pytest.raises(DataError, match="has the splits train; accepted"):
        tfds_files.read("tiny", folder)


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "info"])
def test_damaged_files_end_in_one_line_that_says_what_to_do(tmp_path, damage):
    folder = prepare(tmp_path, train=examples(300), test=examples(3))
    (path,) = folder.glob("*train.array_record*")
    if damage == "remove":
        path.unlink()
    elif damage == "info":
        (folder / "dataset_info.json").write_text("{")
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 9000])
    with pytest.raises(DataError, match="delete that folder") as error:
        tfds_files.read("tiny", folder)
    assert "\n" not in str(error.value)


def test_the_highest_version_is_found_by_number(tmp_path):
    for version in ("3.0.2", "3.0.10", "not-a-version"):
        folder = tmp_path / "second" / "tiny" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "second" / "tiny" / "4.0.0").mkdir()  # incomplete
    folders = [tmp_path / "first", tmp_path / "second"]
    assert tfds_files.find("tiny", folders) == tmp_path / "second" / "tiny" / "3.0.10"
    assert tfds_files.find("tiny", folders, "3.0.2") == tmp_path / "second" / "tiny" / "3.0.2"
    assert tfds_files.find("tiny", folders, "3.0.3") is None


def test_a_cached_dataset_is_not_taken_for_the_other_one_in_data_dir(tmp_path):
    # The same name, in data_dirs of their own: another version, and the same with other examples.
    cache_dir = str(tmp_path / "cache")
    found = []
    for number, (count, version) in enumerate([(5, "1.0.0"), (6, "2.0.0"), (8, "1.0.0")] * 2):
        data_dir = tmp_path / str(number % 3)
        if number < 3:
            prepare(
                data_dir, train=examples(count), test=examples(3), version=version, name="stl10"
            )
        dataset = load("stl10", data_dir=str(data_dir), cache_dir=cache_dir)
        assert len(dataset.train_labels) == count
        found.append(dataset.origin.split()[0])
    assert found == ["prepared"] * 3 + ["cache"] * 3


def test_a_name_does_not_lead_out_of_data_dir(tmp_path):
    prepare(tmp_path, train=examples(5), test=examples(3))
    with pytest.raises(DataError, match="no such dataset"):
        load("../tiny", data_dir=str(tmp_path / "tiny"), cache_dir=str(tmp_path / "cache"))


def test_a_damaged_cache_is_rebuilt_from_the_prepared_data(tmp_path, caplog):
    prepare(tmp_path, train=examples(5), test=examples(3), name="stl10")
    directories = {"data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    first = load("stl10", **directories)
    (path,) = (tmp_path / "cache").iterdir()
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 255
    path.write_bytes(blob)
    second = load("stl10", **directories)
    assert "damaged" in caplog.text
    assert second.origin.startswith("prepared")
    np.testing.assert_array_equal(second.test_images, first.test_images)
    assert load("stl10", **directories).origin == f"cache {path}"


def test_a_cache_that_cannot_be_written_does_not_keep_data_from_being_read(tmp_path, caplog):
    prepare(tmp_path, train=examples(5), test=examples(3), name="stl10")
    (tmp_path / "file").write_text("")
    dataset = load("stl10", data_dir=str(tmp_path), cache_dir=str(tmp_path / "file"))
    assert len(dataset.train_labels) == 5
    assert "data.cache_dir" in caplog.text


def of_mnist(folder, count, test_count, shape=(28, 28), classes=10):
    features = {
        "image": tfds.features.Image(shape=(*shape, 1)),
        "label": tfds.features.ClassLabel(num_classes=classes),
    }
    train, test = examples(count, shape=shape), examples(test_count, shape=shape)
    prepare(folder, train=train, test=test, features=features, name="mnist", version="3.0.1")
    return {"data_dir": str(folder), "cache_dir": str(folder / "cache")}


def test_other_examples_than_those_of_mnist_are_not_taken_for_mnist(tmp_path, monkeypatch):
    directories = of_mnist(tmp_path, 5, 3)
    facts = SOURCES["mnist"].facts._replace(train=5, test=3)
    monkeypatch.setitem(SOURCES, "mnist", SOURCES["mnist"]._replace(facts=facts))
    with pytest.raises(DataError, match="is not mnist: its examples are others"):
        load("mnist", **directories)
    assert not (tmp_path / "cache").exists()


def test_examples_of_another_dataset_are_found_out_where_its_own_are_not_known(
    tmp_path, monkeypatch
):
    from lth_jax.data.archives import content_digest

    directories = of_mnist(tmp_path, 5, 3)
    (tmp_path / "kmnist").mkdir()
    (tmp_path / "mnist" / "3.0.1").rename(tmp_path / "kmnist" / "3.0.1")
    assert len(load("kmnist", **directories).train_labels) == 5
    mixed = SOURCES["mnist"]._replace(content=content_digest(load("kmnist", **directories)))
    monkeypatch.setitem(SOURCES, "mnist", mixed)
    with pytest.raises(DataError, match="is not kmnist: its examples are others"):
        load("kmnist", data_dir=str(tmp_path), cache_dir=str(tmp_path / "other"))


def test_a_part_of_mnist_is_read_with_a_warning(tmp_path, caplog):
    dataset = load("mnist", **of_mnist(tmp_path, 5, 3))
    assert len(dataset.train_labels) == 5
    assert dataset.num_classes == 10  # although three occur
    assert "has 5 training and 3 test examples, where the dataset has 60000" in caplog.text


def test_images_of_another_shape_than_those_of_mnist_are_refused(tmp_path):
    with pytest.raises(DataError) as error:
        load("mnist", **of_mnist(tmp_path, 5, 3, shape=(5, 5)))
    assert str(error.value) == (
        "mnist has images of 5×5×1 in 10 classes; accepted: 28×28×1 in 10 classes "
        f"(this is prepared TFDS data in {tmp_path / 'mnist' / '3.0.1'})"
    )


def test_classes_are_named_where_somebody_says_so_whether_cached_or_not(tmp_path):
    directories = of_mnist(tmp_path, 5, 3)
    assert load("mnist", **directories).class_names == ()
    (tmp_path / "fashion_mnist").mkdir()
    (tmp_path / "mnist" / "3.0.1").rename(tmp_path / "fashion_mnist" / "3.0.1")
    for _ in range(2):
        assert load("fashion_mnist", **directories).class_names[7] == "Sneaker"
    folder = prepare(tmp_path, train=examples(5), test=examples(3), name="stl10")
    (folder / "another.labels.txt").write_text("odd\neven\n")
    for names, wanted in (("a\nb\n", ()), ("cat\ndog \n\nbird\n", ("cat", "dog", "bird"))):
        (folder / "label.labels.txt").write_text(names)
        assert load("stl10", **directories).class_names == wanted
