"""Datasets by name: where they come from, and what is said when they cannot be had."""

import gzip
import http.server
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lth_jax.data import DATASETS, check_name, embedded, idx, load, network
from lth_jax.errors import DataError

# Of every registered dataset: examples, shape, `content_digest`, mean and deviation of the training
# pixels in [0, 1] (those of MNIST and Fashion-MNIST as the literature has them).
GOLDEN = {
    "digits": (
        (1500, 297),
        (8, 8, 1),
        "7846b4dfd2bc40b65c427fd5f3017d149aba62336121cbe8e06e443f668d7b9a",
        0.30515,
        0.37607,
    ),
    "mnist": (
        (60000, 10000),
        (28, 28, 1),
        "9f1b74bb48e796b31ed0af89be552e68ec619e9ef050c7d296aa6db3040d06e9",
        0.13066,
        0.30811,
    ),
    "fashion_mnist": (
        (60000, 10000),
        (28, 28, 1),
        "4e203a4e2b3cd520dee22679cd6e9ab75e13db842aa00699b1c9ae64065c598b",
        0.28604,
        0.35302,
    ),
}


def assert_golden(dataset):
    counts, shape, digest, mean, deviation = GOLDEN[dataset.name]
    assert dataset.train_images.shape == (counts[0], *shape)
    assert dataset.test_images.shape == (counts[1], *shape)
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
    assert set(dataset.train_labels.tolist()) == set(range(dataset.num_classes))
    pixels = dataset.train_images * np.float64(dataset.scale)
    assert pixels.min() == 0
    assert pixels.max() == 1
    assert (round(pixels.mean(), 5), round(pixels.std(), 5)) == (mean, deviation)
    assert idx.content_digest(dataset) == digest
    assert dataset.origin


@pytest.mark.parametrize("name", [name for name in DATASETS if embedded(name)])
def test_embedded_datasets_are_what_they_were_and_touch_no_disk(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert_golden(load(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_prepared_mnist_is_read_and_then_cached(real_data_dir, tmp_path):
    places = {"data_dir": str(real_data_dir), "cache_dir": str(tmp_path)}
    first = load("mnist", **places)
    assert first.origin.startswith("prepared TFDS data")
    assert_golden(first)
    start = time.monotonic()
    second = load("mnist", **places)
    assert time.monotonic() - start < 1
    assert second.origin.startswith("cache")
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(second, field), getattr(first, field))


@pytest.mark.slow
def test_mnist_and_fashion_mnist_of_one_data_dir_are_not_mixed_up(
    real_archives, real_data_dir, tmp_path, no_network
):
    import tensorflow_datasets as tfds

    places = {
        "data_dir": str(tmp_path / "data"),
        "manual_dir": str(real_archives),
        "cache_dir": str(tmp_path / "cache"),
    }
    mnist, fashion = load("mnist", **places), load("fashion_mnist", **places)
    assert_golden(mnist)
    assert_golden(fashion)
    # In the very order of TFDS's own preparation, and readable by its own builders.
    stock = load("mnist", data_dir=str(real_data_dir), cache_dir=str(tmp_path / "other"))
    np.testing.assert_array_equal(mnist.train_images, stock.train_images)
    np.testing.assert_array_equal(mnist.test_labels, stock.test_labels)
    for dataset in (mnist, fashion):
        builder = tfds.builder(dataset.name, data_dir=tmp_path / "data")
        assert builder.is_prepared()
        example = builder.as_data_source("test")[123]
        np.testing.assert_array_equal(example["image"], dataset.test_images[123])
        assert example["label"] == dataset.test_labels[123]
    assert builder.info.features["label"].names[0] == "T-shirt/top"


def test_the_checksums_are_those_that_tfds_records():
    from tensorflow_datasets.core.download import checksums

    known = checksums.get_all_url_infos()
    for name, source in idx.SOURCES.items():
        ours = idx._checksums(name)
        assert set(ours) == set(idx.ARCHIVES)
        for file, sha256 in ours.items():
            assert known[source.url + file].checksum == sha256


def write_archives(folder, *, images, labels, test_images, test_labels):
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(idx.ARCHIVES, (images, labels, test_images, test_labels), strict=True):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (folder / file).write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def archives(tmp_path):
    """Archives in MNIST's format, but of 12 and 5 random images."""
    random = np.random.default_rng(0)
    arrays = {
        "images": random.integers(0, 256, (12, 28, 28), np.uint8),
        "labels": np.arange(12, dtype=np.uint8) % 10,
        "test_images": random.integers(0, 256, (5, 28, 28), np.uint8),
        "test_labels": np.arange(5, dtype=np.uint8),
    }
    write_archives(tmp_path / "archives", **arrays)
    return tmp_path / "archives", arrays


def url_infos(folder):
    """Of the archives in `folder`, as if they were MNIST's."""
    from tensorflow_datasets.core.download import checksums

    url = idx.SOURCES["mnist"].url
    return {url + file: checksums.compute_url_info(folder / file) for file in idx.ARCHIVES}


def test_a_data_dir_that_cannot_be_written_is_passed_over_for_the_cache_dir(
    archives, tmp_path, monkeypatch, no_network
):
    from lth_jax.data.idx_builders import Mnist

    folder, arrays = archives  # the archives themselves, not a folder of datasets'
    found = url_infos(folder)
    monkeypatch.setattr(Mnist, "url_infos", found)
    hashes = {url.rpartition("/")[2]: info.checksum for url, info in found.items()}
    monkeypatch.setattr(idx, "_checksums", lambda _: hashes)
    (tmp_path / "file").write_text("")
    places = {"data_dir": str(tmp_path / "file"), "cache_dir": str(tmp_path / "cache")}
    dataset = load("mnist", manual_dir=str(folder), **places)
    assert sorted(dataset.train_labels.tolist()) == sorted(arrays["labels"].tolist())
    assert (tmp_path / "cache" / "tfds" / "mnist" / "3.0.1").is_dir()


def test_archives_are_prepared_without_tensorflow_and_read_back(archives, tmp_path):
    from lth_jax.data import prepared, preparing
    from lth_jax.data.idx_builders import Mnist

    folder, arrays = archives

    class Tiny(Mnist, skip_registration=True):
        name = "tiny"
        url_infos = url_infos(folder)

    preparing.download_and_prepare(Tiny(data_dir=tmp_path / "data"), folder)
    dataset = prepared.read("tiny", tmp_path / "data" / "tiny" / idx.VERSION)
    order = [
        arrays["images"].tolist().index(image[..., 0].tolist()) for image in dataset.train_images
    ]
    assert sorted(order) == list(range(12))
    np.testing.assert_array_equal(dataset.train_labels, arrays["labels"][order])
    assert len(dataset.test_labels) == 5
    assert "tensorflow" not in sys.modules


def test_archives_with_other_checksums_are_named_and_not_used(archives, tmp_path, no_network):
    with pytest.raises(DataError, match="damaged or of another dataset") as error:
        load(
            "mnist",
            data_dir=str(tmp_path / "data"),
            manual_dir=str(archives[0]),
            cache_dir=str(tmp_path / "cache"),
        )
    assert "train-images-idx3-ubyte.gz" in str(error.value)


def test_missing_archives_are_named(real_archives, tmp_path, no_network):
    folder = tmp_path / "manual" / "mnist"
    folder.mkdir(parents=True)
    for file in idx.ARCHIVES[1:]:
        (folder / file).symlink_to(real_archives / "mnist" / file)
    with pytest.raises(DataError, match=rf"{folder} lacks train-images-idx3-ubyte.gz\)"):
        load(
            "mnist", data_dir=str(tmp_path), manual_dir=str(folder.parent), cache_dir=str(tmp_path)
        )


@pytest.mark.parametrize(
    "content", [b"\0\0\x09\x01\0\0\0\1\0", b"\0\0\x08\x01\0\0\0\2\0", b"not an idx file"]
)
def test_a_file_that_is_no_idx_file_of_uint8_is_refused(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"file\.gz"):
        idx.read_archive(path)


@pytest.mark.parametrize("name", idx.SOURCES)
def test_without_data_and_network_one_line_says_in_seconds_what_to_do(name, tmp_path, no_network):
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        load(name, data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    assert time.monotonic() - start < 5
    text = str(error.value)
    assert "\n" not in text
    for part in (
        f"data.data_dir={tmp_path / 'data'}",
        f"data.manual_dir={tmp_path / 'data' / 'downloads' / 'manual'}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "TFDS_DATA_DIR",
        "configs/lenet_digits.py",
        *idx.ARCHIVES,
    ):
        assert part in text
    assert not list(tmp_path.iterdir())  # a failure leaves no folders behind


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy whose answer to every request is the status in the path, or one byte at a time."""

    def do_HEAD(self):
        status = int(self.path.rsplit("/", 1)[1])
        if status:
            self.send_response(status)
            self.end_headers()
        for _ in range(0 if status else 40):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def proxy(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("no_proxy", raising=False)
        yield
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (200, ""),
        (403, "example.org answers 403 Forbidden"),
        (503, "example.org answers 503 Service Unavailable"),
    ],
)
def test_a_download_is_tried_only_if_the_host_has_it(proxy, status, problem):
    assert network.problem_with(f"http://example.org/{status}") == problem


def test_a_host_that_answers_too_slowly_is_given_up_in_time(proxy):
    start = time.monotonic()
    problem = network.problem_with("http://example.org/0", timeout=0.4)
    assert time.monotonic() - start < 1.5
    assert problem == "example.org does not answer within 0.4 s"


def test_a_host_that_cannot_be_reached_is_a_problem(no_network):
    assert "example.org cannot be reached" in network.problem_with("http://example.org/200")


def test_the_default_folders_come_from_the_environment(monkeypatch, tmp_path, no_network):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "from-variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    with pytest.raises(DataError) as error:
        load("mnist")
    assert f"data.data_dir={tmp_path / 'from-variable'}," in str(error.value)
    assert f"data.cache_dir={tmp_path / 'caches' / 'lth_jax'}," in str(error.value)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataError) as error:
        load("mnist")
    assert f"data.data_dir={tmp_path / 'home' / 'tensorflow_datasets'}," in str(error.value)
    assert f"data.cache_dir={tmp_path / 'home' / '.cache' / 'lth_jax'}," in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "did you mean 'mnist'"),
        ("cifar1O", "did you mean 'cifar10'"),
        ("../etc", "no such dataset"),
        ("emnist", "accepted: emnist/byclass, emnist/bymerge, emnist/balanced"),
        ("cifar10/small", "accepted: cifar10$"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, message, tmp_path):
    for refuse in (check_name, lambda name: load(name, data_dir=str(tmp_path))):
        with pytest.raises(DataError, match=message) as error:
            refuse(name)
        assert str(error.value).startswith(f"config.data.name={name}: ")


@pytest.mark.parametrize("name", [*DATASETS, "cifar10", "emnist/letters"])
def test_a_known_name_is_accepted(name):
    check_name(name)


def test_an_unprepared_stock_dataset_says_how_to_prepare_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs none") as error:
        load("cifar100", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert "tensorflow-cpu" in str(error.value)
    assert not caplog.records  # the error alone, not what TFDS has to say as well
    assert f"data.data_dir={tmp_path}" in str(error.value)
    with pytest.raises(DataError, match="images of one size"):
        load("caltech101", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))


def test_a_folder_on_another_machine_is_refused():
    with pytest.raises(DataError, match=r"data.data_dir=gs://bucket: accepted: a folder"):
        load("mnist", data_dir="gs://bucket")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, lth_jax.data as data; data.check_name('mnist'); "
        "assert not {'tensorflow_datasets', 'sklearn', 'PIL', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
