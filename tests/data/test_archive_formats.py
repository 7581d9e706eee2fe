"""The original archives' formats: read whole, or refused."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from lth_jax.data import archive_formats as formats

from .fake_data import random_images, write_tar


@pytest.mark.parametrize(
    "content", [b"\0\0\x09\x01\0\0\0\1\0", b"\0\0\x08\x01\0\0\0\2\0", b"not an idx file"]
)
def test_a_file_that_is_no_idx_file_of_uint8_is_refused(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"file\.gz"):
        formats.read_idx(path)


def read_cifar10(path):
    return formats.read_cifar(path, formats.CIFAR_LAYOUTS["cifar10"])


def read(tmp_path, files):
    write_tar(tmp_path / "archive.tar.gz", files)
    return read_cifar10(tmp_path / "archive.tar.gz")


def test_cifar_is_read_in_its_order_and_nothing_else_is(tmp_path, cifar10_files):
    strangers = {
        "/data_batch_1.bin": b"x",
        "../data_batch_1.bin": b"x",
        "readme/test_batch.bin": b"x",
    }
    contents = read(tmp_path, {**cifar10_files, **strangers})
    images, labels = random_images("cifar10", 20)
    np.testing.assert_array_equal(contents.images["train"], images)
    np.testing.assert_array_equal(contents.labels["train"]["label"], labels)
    assert contents.images["test"].shape == (3, 32, 32, 3)
    assert contents.names == {"label": [f"class{n}" for n in range(10)]}
    assert [path.name for path in tmp_path.iterdir()] == ["archive.tar.gz"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"test_batch.bin": None}, "lacks test_batch.bin in cifar-10-batches-bin"),
        ({"data_batch_2.bin": b"\0" * 3074}, "data_batch_2.bin .* whole records of 3073 bytes"),
        ({"data_batch_2.bin": b""}, "data_batch_2.bin .* whole records"),
    ],
)
def test_an_archive_that_lacks_a_part_is_refused(tmp_path, cifar10_files, damage, message):
    for file, data in damage.items():
        cifar10_files[f"cifar-10-batches-bin/{file}"] = data
    with pytest.raises(ValueError, match=message):
        read(tmp_path, {name: data for name, data in cifar10_files.items() if data is not None})


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path, cifar10_files):
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in cifar10_files.items():
            member = tarfile.TarInfo(name)
            if name.endswith("test_batch.bin"):
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match=r"lacks test_batch\.bin"):
        read_cifar10(path)


def test_a_member_of_a_size_that_cifar_never_has_is_not_read(tmp_path, cifar10_files, monkeypatch):
    monkeypatch.setattr(formats, "_LARGEST_BYTES", 4 * 3073 - 1)
    with pytest.raises(ValueError, match=r"data_batch_1\.bin .* has 12292 bytes"):
        read(tmp_path, cifar10_files)


@pytest.mark.parametrize("kept", [0, 100, -2000])
def test_a_damaged_archive_is_refused(tmp_path, cifar10_files, kept):
    write_tar(tmp_path / "whole", cifar10_files)
    (tmp_path / "part").write_bytes((tmp_path / "whole").read_bytes()[:kept])
    with pytest.raises(ValueError, match="not a whole gzipped tar archive"):
        read_cifar10(tmp_path / "part")
