"""The cache of decoded arrays: whole or absent, checked, and never taken for something else."""

import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lth_jax.data import cache, load

KEY = cache.Key("tiny", "1.0.0", "00ff")
FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "num_classes", "scale")


def assert_same(found, expected):
    assert found is not None
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    assert found.train_images.dtype == np.uint8
    assert found.train_labels.dtype == np.int32


def test_what_was_stored_is_loaded(tmp_path, tiny):
    cache.store(tmp_path / "new" / "folder", KEY, tiny)
    assert_same(cache.load(tmp_path / "new" / "folder", "tiny"), tiny)


def test_the_origin_names_the_cache(tmp_path, tiny):
    cache.store(tmp_path, KEY, tiny)
    assert cache.load(tmp_path, "tiny").origin == f"cache {tmp_path / KEY.file_name}"


def test_an_empty_or_missing_cache_has_nothing(tmp_path):
    assert cache.load(tmp_path, "tiny") is None
    assert cache.load(tmp_path / "missing", "tiny") is None


@pytest.mark.parametrize(
    "wanted",
    [{"version": "2.0.0"}, {"source": "00fe"}, {"content": "other"}],
    ids=["version", "source", "content"],
)
def test_another_version_source_or_content_is_not_taken(tmp_path, tiny, wanted):
    cache.store(tmp_path, KEY, tiny, content="this")
    assert cache.load(tmp_path, "tiny", version="1.0.0", source="00ff", content="this")
    assert cache.load(tmp_path, "tiny", **wanted) is None


def test_another_dataset_is_not_taken(tmp_path, tiny):
    cache.store(tmp_path, KEY._replace(name="tiny/config"), tiny)
    assert cache.load(tmp_path, "tiny") is None
    assert_same(cache.load(tmp_path, "tiny/config"), tiny)


def test_every_single_damaged_byte_is_found_and_reported(tmp_path, tiny, caplog):
    cache.store(tmp_path, KEY, tiny)
    path = tmp_path / KEY.file_name
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert cache.load(tmp_path, "tiny") is None, position
    assert str(path) in caplog.text
    path.write_bytes(whole)
    assert_same(cache.load(tmp_path, "tiny"), tiny)


@pytest.mark.parametrize("kept", [0, 10, 65, 200, -1])
def test_a_truncated_file_is_not_taken(tmp_path, tiny, kept):
    cache.store(tmp_path, KEY, tiny)
    path = tmp_path / KEY.file_name
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.load(tmp_path, "tiny") is None


def test_a_file_under_the_name_of_another_is_not_taken(tmp_path, tiny):
    cache.store(tmp_path, KEY, tiny)
    (tmp_path / KEY.file_name).rename(tmp_path / KEY._replace(version="2.0.0").file_name)
    assert cache.load(tmp_path, "tiny", version="2.0.0") is None


def test_a_damaged_file_is_replaced_by_the_next_store(tmp_path, tiny):
    (tmp_path / KEY.file_name).write_bytes(b"nonsense")
    cache.store(tmp_path, KEY, tiny)
    assert_same(cache.load(tmp_path, "tiny"), tiny)


def test_what_is_not_uint8_is_not_stored(tmp_path, tiny):
    floats = tiny._replace(train_images=tiny.train_images.astype(np.float32))
    with pytest.raises(TypeError, match="safe"):
        cache.store(tmp_path, KEY, floats)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_warned_of_and_no_more(tmp_path, tiny, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        cache.store(blocked / "cache", KEY, tiny)
    assert "data.cache_dir" in caplog.text
    assert cache.load(blocked / "cache", "tiny") is None


def test_leftovers_of_killed_processes_go_away_and_those_of_living_ones_stay(tmp_path, tiny):
    old, young = (tmp_path / f"{KEY.file_name}{name}.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 10 * 24 * 3600,) * 2)
    cache.store(tmp_path, KEY, tiny)
    assert not old.exists()
    assert young.exists()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from lth_jax.data import cache
from lth_jax.data.dataset import Dataset

folder, shade = Path(sys.argv[1]), int(sys.argv[2])
images = np.full((20_000, 28, 28, 1), shade, np.uint8)
labels = np.full(20_000, shade, np.int32)
dataset = Dataset("tiny", images, labels, images[:9], labels[:9], 10, 1.0, "")
print("ready", flush=True)
while True:
    cache.store(folder, cache.Key("tiny", "1.0.0", "00ff"), dataset)
"""


def test_two_writers_and_a_kill_leave_one_whole_dataset(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(shade)], stdout=subprocess.PIPE) for shade in (3, 7)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        seen, until = set(), time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < until:
            found = cache.load(tmp_path, "tiny")
            if found is not None:
                (shade,) = np.unique(found.train_images)
                assert (found.train_labels == shade).all()
                seen.add(int(shade))
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    assert seen == {3, 7}
    assert cache.load(tmp_path, "tiny") is not None


WARM_START = """
import sys
from lth_jax import data
dataset = data.load("mnist", data_dir=sys.argv[1], cache_dir=sys.argv[2])
assert dataset.origin.startswith("cache "), dataset.origin
heavy = {"tensorflow_datasets", "tensorflow", "sklearn", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_warm_start_needs_no_data_and_does_not_import_tfds(tmp_path, tiny):
    from lth_jax.data.sources import SOURCES

    images = np.zeros((6, 28, 28, 1), np.uint8)
    like_mnist = tiny._replace(train_images=images, test_images=images[:4], num_classes=10)
    key = KEY._replace(name="mnist", version="3.0.1")
    cache.store(tmp_path, key, like_mnist, SOURCES["mnist"].content)
    command = [sys.executable, "-c", WARM_START, str(tmp_path / "nothing"), str(tmp_path)]
    subprocess.run(command, check=True)


def test_a_cached_mnist_that_was_not_recognized_as_mnist_is_not_taken(tmp_path, tiny, no_network):
    from lth_jax.errors import DataError

    cache.store(tmp_path, KEY._replace(name="mnist", version="3.0.1"), tiny, "something else")
    with pytest.raises(DataError, match="nowhere"):
        load("mnist", data_dir=str(tmp_path / "nothing"), cache_dir=str(tmp_path))
