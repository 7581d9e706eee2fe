"""Files of arrays: what goes in comes out, and a file that is not whole is refused."""

import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.errors import StoreError
from lth_jax.export import containers

from ..tiny import flip_byte

ARRAYS = {
    "a/b": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "count": np.int32(3),
    "bits": np.packbits(np.ones(9, bool)),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 2), np.float32),
    "half": np.asarray(jnp.arange(4, dtype=jnp.bfloat16)),
}
every_format = pytest.mark.parametrize("file_format", containers.FORMATS)


@every_format
def test_arrays_and_metadata_come_back_as_they_were(file_format, tmp_path):
    file = tmp_path / "name.of-its-own"
    written = containers.write(file, ARRAYS, {"kind": "test", "text": "ä"}, file_format)
    assert [path.name for path in tmp_path.iterdir()] == ["name.of-its-own"]
    assert written == file.stat().st_size
    arrays, metadata = containers.read(file)
    assert (metadata["kind"], metadata["text"]) == ("test", "ä")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_an_archive_holds_no_pickle(tmp_path):
    containers.write(tmp_path / "file", ARRAYS, {"kind": "test"}, "npz")
    with zipfile.ZipFile(tmp_path / "file") as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                np.lib.format.read_array(member, allow_pickle=False)


@every_format
@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_flipped_byte_is_found(file_format, place, tmp_path):
    arrays = {"a": np.random.default_rng(0).normal(size=500)}
    size = containers.write(tmp_path / "file", arrays, {"kind": "test"}, file_format)
    flip_byte(tmp_path / "file", int(place * size))
    with pytest.raises(StoreError, match=r"file is (damaged|no whole file)"):
        containers.read(tmp_path / "file")


@every_format
def test_what_is_cut_short_foreign_or_newer_is_refused(file_format, tmp_path, monkeypatch):
    file = tmp_path / "file"
    size = containers.write(file, ARRAYS, {"kind": "test"}, file_format)
    file.write_bytes(file.read_bytes()[: size // 2])
    with pytest.raises(StoreError, match="no whole file"):
        containers.read(file)
    file.write_bytes(b"something else")
    with pytest.raises(StoreError, match="no whole file"):
        containers.read(file)
    with pytest.raises(StoreError, match=r"cannot read .*absent: No such file"):
        containers.read(tmp_path / "absent")
    monkeypatch.setattr(containers, "VERSION", "2")
    containers.write(file, ARRAYS, {"kind": "test"}, file_format)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="has version '2'; this version reads 1"):
        containers.read(file)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "file"
    containers.write(file, ARRAYS, {"kind": "test"})
    before = file.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(StoreError, match=r"cannot write .*file: No space"):
        containers.write(file, {}, {"kind": "test"})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == before
