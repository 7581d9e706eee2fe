"""Custom datasets: any function of arrays, checked before anything is trained on them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.config import ModelSpec
from lth_jax.data import DATASETS, check_name, content_of, custom_dataset, facts, load, split
from lth_jax.errors import DataError, SpecError
from lth_jax.lottery import building, checks

from ..tiny import tiny_spec, train

RANDOM = np.random.default_rng(0)
TRAIN, TEST = 40, 12


def arrays(shape=(6, 5, 3), dtype=np.uint8, classes=4):
    """A mapping that is a good dataset, for tests to spoil."""
    images = RANDOM.integers(0, 256, (TRAIN + TEST, *shape)).astype(dtype)
    labels = np.arange(TRAIN + TEST) % classes
    return {
        "train_images": images[:TRAIN],
        "train_labels": labels[:TRAIN],
        "test_images": images[TRAIN:],
        "test_labels": labels[TRAIN:],
    }


def pairs(given):
    first = given["train_images"], given["train_labels"]
    return first, (given["test_images"], given["test_labels"])


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """What is loaded under the name `mine` from a function that gives its argument."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def load_given(given):
        monkeypatch.setitem(DATASETS, "mine", custom_dataset("mine", lambda: given))
        return load("mine")

    yield load_given
    # The data are never cached; what computes a network may be.
    assert {path.name for path in tmp_path.glob("cache/lth_jax/*")} <= {"kernels"}


def test_bytes_are_taken_as_pixels(loaded):
    given = arrays()
    for found in (loaded(given), loaded(pairs(given)), loaded([list(p) for p in pairs(given)])):
        for field, array in given.items():
            np.testing.assert_array_equal(getattr(found, field), array)
        assert (found.name, found.num_classes, found.scale) == ("mine", 4, 1 / 255)
        assert found.train_images.dtype == np.uint8
        assert found.train_labels.dtype == np.int32
        assert "lambda" in found.origin


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_floats_are_taken_as_they_are(loaded, dtype):
    given = arrays(dtype=dtype)
    given["train_images"] = given["train_images"] * dtype(-0.5)
    found = loaded(given)
    assert found.scale == 1
    assert found.train_images.dtype == found.test_images.dtype == np.float32
    np.testing.assert_array_equal(found.train_images, given["train_images"].astype(np.float32))


def test_other_arrays_and_lists_do_too(loaded):
    given = {field: jnp.asarray(array) for field, array in arrays().items()}
    given["test_labels"] = given["test_labels"].tolist()
    assert loaded(given).test_labels.tolist() == given["test_labels"]


@pytest.mark.parametrize(
    ("shape", "wanted"), [((6, 5), (6, 5, 1)), ((7,), (1, 7, 1)), ((6, 5, 2), (6, 5, 2))]
)
def test_grey_images_and_features_get_the_axes_that_they_lack(loaded, shape, wanted):
    given = arrays(shape=shape)
    found = loaded(given)
    assert found.train_images.shape == (TRAIN, *wanted)
    assert found.test_images.shape == (TEST, *wanted)
    np.testing.assert_array_equal(found.train_images.ravel(), given["train_images"].ravel())


def test_the_number_of_classes_is_given_or_found(loaded):
    assert loaded({**arrays(), "num_classes": 9}).num_classes == 9
    given = arrays()
    given["test_labels"][3] = 6  # a class of the test set alone
    assert loaded(given).num_classes == 7
    assert loaded({**arrays(), "num_classes": None}).num_classes == 4


def spoiled(**fields):
    given = {**arrays(), **fields}
    return {field: value for field, value in given.items() if value is not ...}


IMAGES = arrays()["train_images"]
FLOATS = arrays(dtype=np.float32)
LABELS = arrays()["train_labels"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"mine gives a NoneType; accepted: \(\(train_images, train_labels\), \(test"),
        ((IMAGES, LABELS), "mine gives a tuple of 2; accepted"),
        (IMAGES, "mine gives a ndarray; accepted"),
        ((*pairs(arrays()), 3), "mine gives a tuple of 3; accepted"),
        (spoiled(test_labels=...), "mine does not give test_labels; accepted"),
        (spoiled(num_clases=4), "mine gives 'num_clases'; did you mean 'num_classes'"),
        (spoiled(num_classes=4.0), r"num_classes is 4\.0; accepted: an integer"),
        (spoiled(num_classes=True), "num_classes is True; accepted"),
        (spoiled(num_classes=0), "num_classes is 0; accepted"),
        (spoiled(num_classes=3), "mine has labels from 0 to 3; accepted: 0 to 2"),
        (spoiled(train_images=IMAGES.astype(np.int64)), "train_images is int64 .* accepted: uint8"),
        (spoiled(train_images=IMAGES > 9), "train_images is bool .* accepted: uint8 or floats"),
        (spoiled(train_images=IMAGES.ravel()), r"train_images is uint8 of shape \(3600,\)"),
        (spoiled(train_images=IMAGES[None]), r"train_images is uint8 of shape \(1, 40,"),
        (spoiled(train_images=[[1], [1, 2]]), "train_images is no array"),
        (spoiled(train_images=IMAGES[:0], train_labels=LABELS[:0]), "train_images is empty"),
        (spoiled(test_images=IMAGES[:0], test_labels=LABELS[:0]), "test_images is empty"),
        (spoiled(train_images=IMAGES[:, :0], test_images=IMAGES[:12, :0]), "train_images is empty"),
        (spoiled(train_images=IMAGES[:-1]), r"train_labels is int32 of shape \(40,\), for 39"),
        (spoiled(test_labels=LABELS), r"test_labels is int32 of shape \(40,\), for 12 images"),
        (
            spoiled(test_images=IMAGES[:12, 1:]),
            "has uint8 of 6×5×3 and uint8 of 5×5×3 to train and to test on",
        ),
        (spoiled(test_images=FLOATS["test_images"]), "has uint8 of 6×5×3 and float32 of 6×5×3"),
        ({**FLOATS, "test_images": FLOATS["test_images"] * np.nan}, "test_images has .* NaN"),
        ({**FLOATS, "train_images": np.full((40, 6, 5, 3), 1e300)}, "train_images has .* infinite"),
        (spoiled(train_labels=LABELS - 1), "train_labels has labels from -1 to 2; accepted: 0"),
        (spoiled(train_labels=LABELS + 2**40), "train_labels has labels from 10"),
        (spoiled(train_labels=LABELS * 1.0), "train_labels is float64 .* accepted: integers"),
        (spoiled(train_labels=LABELS > 1), "train_labels is bool .* accepted: integers"),
        (spoiled(train_labels=LABELS[:, None]), r"train_labels is int64 of shape \(40, 1\)"),
        (spoiled(test_labels=["cat"] * 12), "test_labels is str96 .* accepted: integers"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_no_dataset_is_refused_in_one_line(loaded, given, message):
    with pytest.raises(DataError, match=message) as error:
        loaded(given)
    assert str(error.value).startswith("mine")
    assert "\n" not in str(error.value)


def broken():
    raise RuntimeError("no luck\nat all")


def test_a_function_that_fails_is_named_with_its_line(monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", custom_dataset("mine", broken))
    with pytest.raises(DataError) as error:
        load("mine")
    line = broken.__code__.co_firstlineno + 1
    assert str(error.value) == (
        f"mine: the function broken raised RuntimeError in line {line} of {__file__}: no luck"
    )


def test_a_function_that_leaves_the_program_fails_as_well(monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", custom_dataset("mine", lambda: exit(3)))
    with pytest.raises(DataError, match="raised SystemExit"):
        load("mine")


@pytest.mark.parametrize(
    ("function", "message"),
    [(IMAGES, "accepted: a function without"), (pairs, "'given'; accepted")],
)
def test_what_cannot_be_called_without_arguments_is_refused_at_once(function, message):
    with pytest.raises(DataError, match=message):
        custom_dataset("mine", function)


def test_a_row_is_known_by_its_name_and_nothing_of_it_is_before_it_is_loaded(monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", custom_dataset("mine", broken))
    check_name("mine")
    assert facts("mine") is None


def test_the_digest_is_of_all_that_a_number_depends_on(loaded):
    given = arrays(shape=(6, 5))
    same = [given, pairs(given), {**given, "train_images": given["train_images"][..., None]}]
    assert len({content_of(loaded(one)) for one in same}) == 1
    other = {**given, "train_labels": given["train_labels"][::-1]}
    floats = {f: a.astype(np.float32) if "images" in f else a for f, a in given.items()}
    moved = {**given, "test_images": np.roll(given["test_images"], 1, 0)}
    turned = {f: a.swapaxes(1, 2) if "images" in f else a for f, a in given.items()}
    changed = [given, other, floats, moved, turned, {**given, "num_classes": 9}]
    assert len({content_of(loaded(one)).digest for one in changed}) == len(changed)


def test_the_digits_are_those_that_they_always_were():
    """A golden value: run directories hold it, and go on with the same examples only."""
    content = content_of(load("digits"))
    assert content.digest == "9eaea972a403787f"
    assert content.version.startswith("scikit-learn ")


# --- From there to a network ----------------------------------------------------------------


def experiment(*, fields=(), **options):
    options = {"name": "mine", "validation_size": 10, "train_size": 0, "test_size": 0, **options}
    changes = {"train.batch_size": 8, "eval.batch_size": 5, **dict(fields)}
    return tiny_spec(**{f"data.{name}": value for name, value in options.items()}, **changes)


def test_float_images_reach_the_network_as_they_are(loaded):
    given = arrays(shape=(6, 5), dtype=np.float32)
    loaded(given)
    built = building.build(experiment())
    assert built.train.inputs.dtype == jnp.float32
    seen = np.asarray(built.pixels.prepared(built.train.inputs))
    parts = split(load("mine"), validation_size=10)
    np.testing.assert_array_equal(seen, parts.train.images)
    assert set(seen.ravel().tolist()) <= set(given["train_images"].ravel().tolist())
    assert "mine: 30 training, 10 validation, 12 test images of 6×5×1" in built.data


@pytest.mark.slow
def test_float_images_are_standardized_scaled_and_moved(loaded):
    given = arrays(shape=(6, 6), dtype=np.float32)
    for field in ("train_images", "test_images"):
        given[field] = given[field] * np.float32(1e-6)
    loaded(given)
    built = building.build(experiment(standardize=True, side=4, channels=3, crop=1, flip=True))
    seen = np.asarray(built.pixels.prepared(built.train.inputs))
    assert seen.shape == (30, 4, 4, 3)
    assert abs(seen.mean()) < 0.2
    assert 0.8 < seen.std() < 1.2


@pytest.mark.slow
def test_a_ticket_is_found_on_float_images_moved_and_mirrored(monkeypatch, tmp_path):
    given = arrays(dtype=np.float32, classes=2)
    for part in ("train", "test"):  # classes that are easily told apart
        given[f"{part}_images"][given[f"{part}_labels"] == 1] += 500
    monkeypatch.setitem(DATASETS, "easy", custom_dataset("easy", lambda: given))
    fields = {"levels": 1, "branches": (), "replicates": 1, "train.steps": "40"}
    spec = experiment(name="easy", standardize=True, crop=1, flip=True, fields=fields)
    rows = train(tmp_path / "run", spec).sorted_rows()
    assert [row.level for row in rows] == [0, 1]
    assert all(row.final_test_accuracy == 1 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"flip": True},
            "config.data.flip=True: mine has images of 1×7, features; accepted: False",
        ),
        ({"crop": 2}, "config.data.crop=2: mine has images of 1×7, features; accepted: 0"),
        ({"side": 28}, "config.data.side=28: mine has images of 1×7, features; accepted: 0"),
    ],
)
def test_features_are_not_treated_as_pictures(loaded, options, message):
    loaded(arrays(shape=(7,), dtype=np.float32))
    building.build(experiment(standardize=True))
    with pytest.raises(DataError) as error:
        building.build(experiment(**options))
    assert str(error.value) == message


def test_a_network_of_pictures_refuses_features(loaded):
    loaded(arrays(shape=(7,), dtype=np.float32))
    lenet5 = dataclasses.replace(experiment(), model=ModelSpec(name="lenet5"))
    with pytest.raises(SpecError, match="those of mine are 1×7"):
        building.build(lenet5)


def test_what_cannot_be_done_to_images_is_refused_before_they_are_loaded():
    with pytest.raises(DataError, match="crop=8: digits has images of 8×8; accepted: 0 to 7"):
        checks.check(experiment(name="digits", crop=8))
    checks.check(experiment(name="digits", crop=8, side=9))
    with pytest.raises(DataError, match="channels=1: cifar10 has 3 channels; accepted: 0 or 3"):
        checks.check(experiment(name="cifar10", channels=1))
