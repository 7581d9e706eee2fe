"""The cache of decoded arrays: whole or absent, checked, and never taken for something else."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lth_jax.data import cache, load
from lth_jax.data.dataset import Dataset

KEY = {"version": "1.0.0", "source": "00ff"}
FILE = "tiny-1.0.0-00ff.arrays1"
FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "num_classes", "scale")


def assert_same(found, expected):
    assert found is not None
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    assert found.train_images.dtype == np.uint8
    assert found.train_labels.dtype == np.int32


def test_what_was_stored_is_loaded(tmp_path, tiny):
    cache.store(tmp_path / "new" / "folder", tiny, **KEY)
    assert_same(cache.load(tmp_path / "new" / "folder", "tiny"), tiny)


def test_the_origin_names_the_cache(tmp_path, tiny):
    cache.store(tmp_path, tiny, **KEY)
    assert cache.load(tmp_path, "tiny").origin == f"cache {tmp_path / FILE}"


def test_an_empty_or_missing_cache_has_nothing(tmp_path):
    assert cache.load(tmp_path, "tiny") is None
    assert cache.load(tmp_path / "missing", "tiny") is None


@pytest.mark.parametrize(
    "wanted",
    [{"version": "2.0.0"}, {"source": "00fe"}, {"content": "other"}],
    ids=["version", "source", "content"],
)
def test_another_version_source_or_content_is_not_taken(tmp_path, tiny, wanted):
    cache.store(tmp_path, tiny, **KEY, content="this")
    assert cache.load(tmp_path, "tiny", version="1.0.0", source="00ff", content="this")
    assert cache.load(tmp_path, "tiny", **wanted) is None


def test_another_dataset_is_not_taken(tmp_path, tiny):
    cache.store(tmp_path, tiny._replace(name="tiny/config"), **KEY)
    assert cache.load(tmp_path, "tiny") is None
    assert_same(cache.load(tmp_path, "tiny/config"), tiny)


def test_every_single_damaged_byte_is_found_and_reported(tmp_path, tiny, caplog):
    cache.store(tmp_path, tiny, **KEY)
    path = tmp_path / FILE
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert cache.load(tmp_path, "tiny") is None, position
    assert str(path) in caplog.text
    path.write_bytes(whole)
    assert_same(cache.load(tmp_path, "tiny"), tiny)


@pytest.mark.parametrize("kept", [0, 10, 65, 200, -1])
def test_a_truncated_file_is_not_taken(tmp_path, tiny, kept):
    cache.store(tmp_path, tiny, **KEY)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.load(tmp_path, "tiny") is None


def test_a_file_under_the_name_of_another_is_not_taken(tmp_path, tiny):
    cache.store(tmp_path, tiny, **KEY)
    (tmp_path / FILE).rename(tmp_path / "tiny-2.0.0-00ff.arrays1")
    assert cache.load(tmp_path, "tiny", version="2.0.0") is None


def test_a_damaged_file_is_replaced_by_the_next_store(tmp_path, tiny):
    (tmp_path / FILE).write_bytes(b"nonsense")
    cache.store(tmp_path, tiny, **KEY)
    assert_same(cache.load(tmp_path, "tiny"), tiny)


def test_arrays_of_any_dtype_and_shape_are_kept(tmp_path, tiny):
    other = tiny._replace(
        train_images=np.linspace(0, 1, 6 * 7, dtype=np.float64).reshape(6, 7),
        test_images=np.arange(4, dtype=np.int64),
        train_labels=np.ones((6, 3), np.float32),
        test_labels=np.zeros((4, 3), bool),
    )
    cache.store(tmp_path, other, **KEY)
    found = cache.load(tmp_path, "tiny")
    for field in FIELDS[:4]:
        np.testing.assert_array_equal(getattr(found, field), getattr(other, field), strict=True)


def test_a_file_whose_header_tells_no_dtypes_is_read(tmp_path, tiny):
    """As the first versions wrote them."""
    cache.store(tmp_path, tiny, **KEY)
    path = tmp_path / FILE
    blob = path.read_bytes()
    line_end = blob.index(b"\n", 65)
    header = json.loads(blob[65:line_end])
    del header["dtypes"]
    body = json.dumps(header).encode() + b"\n" + blob[line_end + 1 :]
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert_same(cache.load(tmp_path, "tiny"), tiny)


def test_a_folder_that_cannot_be_written_is_warned_of_and_no_more(tmp_path, tiny, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        cache.store(blocked / "cache", tiny, **KEY)
    assert "data.cache_dir" in caplog.text
    assert cache.load(blocked / "cache", "tiny") is None


def test_leftovers_of_killed_processes_go_away_and_those_of_living_ones_stay(tmp_path, tiny):
    old, young = (tmp_path / f"{FILE}{name}.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 10 * 24 * 3600,) * 2)
    cache.store(tmp_path, tiny, **KEY)
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
    cache.store(folder, dataset, version="1.0.0", source="00ff")
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
    from lth_jax.data.archives import SOURCES

    images = np.zeros((6, 28, 28, 1), np.uint8)
    like_mnist = tiny._replace(
        name="mnist", train_images=images, test_images=images[:4], num_classes=10
    )
    key = {"version": "3.0.1", "source": "00ff"}
    cache.store(tmp_path, like_mnist, **key, content=SOURCES["mnist"].content)
    command = [sys.executable, "-c", WARM_START, str(tmp_path / "nothing"), str(tmp_path)]
    subprocess.run(command, check=True)


def test_a_cached_mnist_that_was_not_recognized_as_mnist_is_not_taken(tmp_path, tiny, no_network):
    from lth_jax.errors import DataError

    key = {"version": "3.0.1", "source": "00ff", "content": "something else"}
    cache.store(tmp_path, tiny._replace(name="mnist"), **key)
    with pytest.raises(DataError, match="nowhere"):
        load("mnist", data_dir=str(tmp_path / "nothing"), cache_dir=str(tmp_path))


@pytest.mark.parametrize(
    "forged",
    [
        {"shapes": [[-1], [4], [6, 8, 8, 1], [4, 8, 8, 1]]},
        {"shapes": [[6], [4], [6, -8, -8, 1], [4, 8, 8, 1]]},
        {"shapes": [[6], [4], [5, 8, 8, 1], [4, 8, 8, 1]]},
        {"shapes": [["6"], [4], [6, 8, 8, 1], [4, 8, 8, 1]]},
        {"shapes": 3},
        {"shapes": []},
        {"dtypes": ["O", "<i4", "|u1", "|u1"]},
        {"num_classes": "2"},
        {"num_classes": 2**70},
        {"num_classes": 0},
        {"scale": None},
        {"scale": float("inf")},
        {"content": []},
    ],
)
def test_a_forged_header_is_passed_over_whatever_its_checksum_says(tmp_path, forged, caplog):
    images = np.zeros((6, 8, 8, 1), np.uint8)
    labels = np.zeros(6, np.int32)
    whole = Dataset("mine", images, labels, images[:4], labels[:4], 2, 1 / 255, "here")
    cache.store(tmp_path, whole, version="1.0.0", source="ab")
    (file,) = tmp_path.iterdir()
    blob = file.read_bytes()[65:]
    line, _, rest = blob.partition(b"\n")
    header = json.dumps(json.loads(line) | forged).encode()
    body = header + b"\n" + rest
    file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert cache.load(tmp_path, "mine") is None
    assert "passing over the damaged data cache" in caplog.text
    assert len(caplog.messages[0].replace(str(file), "")) < 200


def test_a_pipe_is_not_waited_for(tmp_path, tiny, caplog):
    cache.store(tmp_path, tiny, version="1.0.0", source="ab")
    (file,) = tmp_path.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert cache.load(tmp_path, tiny.name) is None
    assert "it is no regular file" in caplog.text
