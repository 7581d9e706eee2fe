"""Where data and caches lie, with a home and without."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from lth_jax import data
from lth_jax.data.directories import resolve
from lth_jax.errors import DataError


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user of whom nothing is known, as in a container with `--user=12345`."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"lth_jax-{os.getuid()}"


def test_defaults_are_in_the_home(monkeypatch):
    for name in ("XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/one")
    found = resolve()
    assert found.data_dir == Path("/home/one/tensorflow_datasets")
    assert found.cache_dir == Path("/home/one/.cache/lth_jax")
    assert found.manual_dir == found.data_dir / "downloads" / "manual"


def test_without_a_home_there_is_a_folder_for_this_user_alone(homeless):
    found = resolve()
    assert found.cache_dir == homeless
    assert found.data_dir == homeless / "tfds"
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert len(data.load("digits").train_labels) > 1000


def test_without_a_home_variables_and_fields_help(homeless, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/data")
    assert resolve(cache_dir="/caches")[::2] == (Path("/data"), Path("/caches"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert resolve().cache_dir == Path("/xdg/lth_jax")
    assert not homeless.exists()


@pytest.mark.parametrize("kind", ["shared", "link", "file"])
def test_a_folder_that_others_could_have_made_is_not_used(kind, homeless, tmp_path):
    if kind == "link":
        homeless.symlink_to(tmp_path)
    elif kind == "file":
        homeless.write_text("")
    else:
        homeless.mkdir()
        homeless.chmod(0o777)
    with pytest.raises(DataError, match=r"^there is no home directory, and .*; accepted: HOME"):
        resolve()
