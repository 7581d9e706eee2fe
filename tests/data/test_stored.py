"""Images that stay on disk: ImageNet's files, made here, a few dozen of them."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from lth_jax.data import content_of, facts_of, load, reshaped, split, stored
from lth_jax.data.stored import CROP_DRAWS, middle, part_of, random_part
from lth_jax.errors import DataError

from .fake_data import as_tfrecord, examples, photographs, prepare, prepare_imagenet

TRAIN, TEST = photographs(12), photographs(5, seed=1)
VALIDATION_LABELS = (65, 970, 230, 809, 516)


@pytest.fixture(params=["array_record", "tfrecord"])
def folder(request, tmp_path):
    """Where a tiny `imagenet2012` lies, and what was made of it."""
    version = prepare_imagenet(tmp_path / "data", TRAIN, TEST)
    if request.param == "tfrecord":
        as_tfrecord(version)
    return tmp_path


def loaded(folder):
    return load("imagenet2012", data_dir=str(folder / "data"), cache_dir=str(folder / "cache"))


def decoded(example):
    return Image.open(io.BytesIO(example["image"])).convert("RGB")


def as_set(images, labels):
    return sorted((int(label), bytes(image)) for image, label in zip(images, labels, strict=True))


def test_images_are_the_middles_of_the_files(folder):
    dataset = loaded(folder)
    assert dataset.train_images.shape == (12, 224, 224, 3)
    assert (dataset.num_classes, dataset.version, dataset.scale) == (1000, "5.1.0", 1 / 255)
    small = reshaped(dataset, side=28)
    for images, labels, made in (
        (small.train_images, small.train_labels, TRAIN),
        (small.test_images, small.test_labels, TEST),  # TFDS's `validation`
    ):
        wanted = [middle(decoded(example), 28) for example in made]
        pixels = np.asarray(images)
        assert pixels.shape == (len(made), 28, 28, 3)
        assert as_set(pixels, labels) == as_set(wanted, [e["label"] for e in made])


def test_the_middle_is_cut_from_an_image_a_little_larger():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).repeat(32).reshape(64, 32, 1)[:, :, 0])
    found = middle(image.convert("RGB"), 28)
    # The shorter side is 32 already: nothing is scaled, and 2 and 18 pixels are left out.
    np.testing.assert_array_equal(found[:, 0, 0], np.arange(18, 46))


def test_the_index_is_made_once_and_tells_datasets_apart(folder, monkeypatch):
    first = loaded(folder)
    monkeypatch.setattr(stored, "index_of", None)
    again = loaded(folder)
    assert content_of(first) == content_of(again)
    part = first._replace(train_images=first.train_images[1:], train_labels=first.train_labels[1:])
    assert content_of(part).digest != content_of(first).digest
    assert facts_of(first).stored


def test_both_formats_have_the_same_content(tmp_path):
    version = prepare_imagenet(tmp_path / "data", TRAIN, TEST)
    before = content_of(loaded(tmp_path))
    as_tfrecord(version)
    assert content_of(loaded(tmp_path)) == before


def test_splits_are_parts_that_still_lie_on_disk(folder):
    whole = reshaped(loaded(folder), side=20)
    parts = split(whole, validation_size=4, train_size=5)
    assert [len(part.images) for part in parts] == [5, 4, 5]
    everything = np.asarray(whole.train_images)
    for part in parts[:2]:
        for image, label in zip(np.asarray(part.images), part.labels, strict=True):
            (same,) = np.flatnonzero((everything == image).all((1, 2, 3)))
            assert whole.train_labels[same] == label
    with pytest.raises(DataError, match=r"config\.data\.pixels='permuted'.*stay on disk"):
        split(whole, validation_size=4, permuted_pixels=True)


def test_random_parts_are_functions_of_the_numbers_alone(folder):
    images = reshaped(loaded(folder), side=16).train_images
    draws = np.random.default_rng(0).random((3, CROP_DRAWS), np.float32)
    found = images.cropped(np.array([3, 1, 3]), draws)
    assert found.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(images.cropped(np.array([1]), draws[1:2]), found[1:2])
    assert (found[0] != found[2]).any()


def test_random_parts_lie_in_the_image_with_the_papers_areas_and_ratios():
    random, size = np.random.default_rng(0), (90, 80)
    parts = np.array([part_of(size, random.random(CROP_DRAWS, np.float32)) for _ in range(2000)])
    left, top, width, height = parts.T
    assert (parts >= 0).all()
    assert (left + width).max() <= 90
    assert (top + height).max() <= 80
    share, ratio = width * height / (90 * 80), width / height
    assert 0.07 < share.min() < 0.1
    assert share.max() > 0.85
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4
    assert abs(np.median(np.log(ratio))) < 0.03  # as often wide as high
    assert abs(np.mean(left / (90 - width).clip(1)) - 0.5) < 0.03


def test_of_an_image_too_long_for_any_part_the_middle_is_taken():
    draws = np.full(CROP_DRAWS, 0.999, np.float32)
    assert part_of((400, 10), draws) == (193, 0, 13, 10)
    assert part_of((10, 400), draws) == (0, 193, 10, 13)
    image = Image.fromarray(np.zeros((10, 400, 3), np.uint8))
    assert random_part(image, 8, draws).shape == (8, 8, 3)


def test_a_file_that_was_changed_since_is_told_and_not_used(folder):
    dataset = loaded(folder)
    (file,) = (folder / "data" / "imagenet2012" / "5.1.0").glob("*-train.*record*")
    content = bytearray(file.read_bytes())
    middle_of = len(content) // 2
    content[middle_of : middle_of + 4] = bytes(b ^ 0xFF for b in content[middle_of : middle_of + 4])
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"the examples in .*5\.1\.0 cannot be read: "):
        np.asarray(dataset.train_images)


def test_a_damaged_dataset_is_refused_in_one_line(folder):
    for file in (folder / "data" / "imagenet2012" / "5.1.0").glob("*-train.*record*"):
        file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(DataError, match="cannot be read") as refused:
        loaded(folder)
    assert "\n" not in str(refused.value)


def tar(folder, name, files):
    with tarfile.open(folder / name, "w") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return (folder / name).read_bytes()


def test_imagenet_is_prepared_from_its_archives_without_tensorflow(tmp_path):
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    classes = {"n01440764": TRAIN[:5], "n01443537": TRAIN[5:]}  # 0 and 1 of the thousand
    parts = {
        f"{name}.tar": tar(
            tmp_path, name, {f"{name}_{i}.JPEG": e["image"] for i, e in enumerate(some)}
        )
        for name, some in classes.items()
    }
    tar(manual, "ILSVRC2012_img_train.tar", parts)
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(5, 0, -1)]
    images = [example["image"] for example in TEST]
    tar(manual, "ILSVRC2012_img_val.tar", dict(zip(names, images, strict=True)))
    small = reshaped(loaded(tmp_path), side=24)
    for found, labels, made in (
        (small.train_images, small.train_labels, zip(TRAIN, [0] * 5 + [1] * 7, strict=True)),
        # The first five of 50,000 classes that TFDS has written down, by name.
        (small.test_images, small.test_labels, zip(TEST[::-1], VALIDATION_LABELS, strict=True)),
    ):
        wanted = [(middle(decoded(example), 24), label) for example, label in made]
        assert as_set(np.asarray(found), labels) == as_set(*zip(*wanted, strict=True))
    assert small.class_names[:2] == ("n01440764", "n01443537")


def test_without_prepared_files_a_line_says_how_to_have_them(tmp_path):
    with pytest.raises(DataError, match=r"^imagenet2012 is not prepared in ") as refused:
        loaded(tmp_path)
    assert "Put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into " in str(refused.value)


def test_other_datasets_of_many_sizes_are_taken_too(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    train = examples(6, shape=(20, 30, 3)) + examples(3, shape=(25, 21, 3), seed=2)
    prepare(tmp_path, train=train, test=examples(4, shape=(22, 22, 3)), features=features)
    dataset = load("tiny", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    mean, deviation = reshaped(dataset, side=16).train_images.moments()
    assert all(0.4 < value < 0.6 for value in mean)
    assert all(0.1 < value < 0.4 for value in deviation)
