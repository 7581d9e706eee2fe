"""Datasets by name: where they come from, and what is said when they cannot be had."""

import http.server
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lth_jax.data import DATASETS, archives, check_name, facts_of, load, tfds_files
from lth_jax.data.archives import SOURCES, content_digest
from lth_jax.errors import DataError
from lth_jax.training.pixels import statistics

# Of every dataset that was at hand: examples, shape, `content_digest`, mean and deviation of the
# training pixels in [0, 1] (as the literature has them, but for the digits).
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
    "cifar10": (
        (50000, 10000),
        (32, 32, 3),
        "250f3ae9f8885deb3b506b934114a4c5adf2e170db7bfd267fc2558446a0eb98",
        0.47336,
        0.25157,
    ),
}

# Mean and deviation of each channel, as everybody writes them down.
STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


ON_DISK = [name for name in DATASETS if name != "digits"]


def assert_golden(dataset):
    counts, shape, digest, mean, deviation = GOLDEN[dataset.name]
    assert dataset.train_images.shape == (counts[0], *shape)
    assert dataset.test_images.shape == (counts[1], *shape)
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
    assert set(dataset.train_labels.tolist()) == set(range(dataset.num_classes))
    assert dataset.train_images.min() == 0
    assert dataset.train_images.max() * dataset.scale == 1
    share = np.bincount(dataset.train_images.ravel(), minlength=256) / dataset.train_images.size
    pixels = np.arange(256) * dataset.scale
    assert round(share @ pixels, 5) == mean
    assert round(np.sqrt(share @ (pixels - share @ pixels) ** 2), 5) == deviation
    if dataset.name in STATISTICS:
        assert statistics(dataset.train_images, dataset.scale) == STATISTICS[dataset.name]
    assert content_digest(dataset) == digest
    assert dataset.origin


def test_the_embedded_dataset_is_what_it_was_and_touches_no_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = load("digits")
    assert_golden(dataset)
    assert facts_of(dataset) == DATASETS["digits"].facts
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DISK)
def test_prepared_datasets_are_what_they_were_and_then_cached(name, real_data_dir, tmp_path):
    if tfds_files.find(name, [real_data_dir]) is None:
        pytest.skip(f"needs TFDS_DATA_DIR with {name} prepared")
    directories = {"data_dir": str(real_data_dir), "cache_dir": str(tmp_path)}
    first = load(name, **directories)
    assert first.origin.startswith("prepared TFDS data")
    assert facts_of(first) == DATASETS[name].facts
    if name in GOLDEN:
        assert_golden(first)
    second = load(name, **directories)
    assert second.origin.startswith("cache")
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(second, field), getattr(first, field))


@pytest.mark.parametrize("name", ON_DISK)
def test_the_facts_are_those_that_tfds_declares(name):
    import tensorflow_datasets as tfds

    builder = tfds.builder(name)
    facts = DATASETS[name].facts
    features = tfds_files.features_of(name, builder.info, any_size=facts.stored)
    letters = name == "emnist/letters"  # 1 to 26 occur, of 0 to 36
    assert (facts.shape, facts.classes) == (
        (224, 224, 3) if facts.stored else features.shape,
        26 if letters else features.num_classes,
    )
    if builder.builder_config:
        declared = builder.builder_config
        assert (facts.train, facts.test) == (declared.train_examples, declared.test_examples)


@pytest.mark.parametrize("name", SOURCES)
def test_without_data_and_network_one_line_says_what_to_do(name, tmp_path, no_network):
    with pytest.raises(DataError) as error:
        load(name, data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    text = str(error.value)
    assert "\n" not in text
    for part in (
        f"data.data_dir={tmp_path / 'data'}",
        f"data.manual_dir={tmp_path / 'data' / 'downloads' / 'manual'}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "TFDS_DATA_DIR",
        "configs/lenet_digits.py",
        *SOURCES[name].archives,
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

    def log_message(self, *args):
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
    assert archives.download_problem(f"http://example.org/{status}") == problem


def test_a_host_that_answers_too_slowly_is_given_up_in_time(proxy):
    problem = archives.download_problem("http://example.org/0", timeout=0.4)
    assert problem == "example.org does not answer within 0.4 s"


def test_a_host_that_cannot_be_reached_is_a_problem(no_network):
    assert "example.org cannot be reached" in archives.download_problem("http://example.org/200")


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
        ("stl1O", "did you mean 'stl10'"),
        ("../etc", "no such dataset"),
        ("emnist", "accepted: emnist/balanced, emnist/byclass, emnist/bymerge and 3 more"),
        ("cifar10/small", "accepted: cifar10$"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, message, tmp_path):
    for refuse in (check_name, lambda name: load(name, data_dir=str(tmp_path))):
        with pytest.raises(DataError, match=message) as error:
            refuse(name)
        assert str(error.value).startswith(f"config.data.name={name}: ")


@pytest.mark.parametrize("name", [*DATASETS, "stl10", "cmaterdb/bangla"])
def test_a_known_name_is_accepted(name):
    check_name(name)


def test_an_unprepared_stock_dataset_says_how_to_prepare_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs none") as error:
        load("svhn_cropped", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert "tensorflow-cpu" in str(error.value)
    assert not caplog.records  # the error alone, not what TFDS has to say as well
    assert f"data.data_dir={tmp_path}" in str(error.value)
    with pytest.raises(DataError, match=r"has Text and ClassLabel; accepted: .* uint8 images$"):
        load("imdb_reviews/plain_text", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))


def test_a_folder_on_another_machine_is_refused():
    with pytest.raises(DataError, match=r"data.data_dir=gs://bucket: accepted: a folder"):
        load("mnist", data_dir="gs://bucket")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, lth_jax.data as data; data.check_name('mnist'); "
        "assert not {'tensorflow_datasets', 'sklearn', 'PIL', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
