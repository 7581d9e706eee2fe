"""What the environment asks of JAX: done where it has a meaning, else named in one line."""

from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from lth_jax.errors import RunError, SpecError
from lth_jax.training import backend


@pytest.fixture
def configured():
    """Changes JAX's configuration for a test, as a variable does from the start."""
    before = {}

    def configured(name, value):
        before.setdefault(name, getattr(jax.config, name))
        jax.config.update(name, value)

    yield configured
    for name, value in before.items():
        jax.config.update(name, value)


def refused():
    with pytest.raises(SpecError) as caught, backend.prepared(pytest.fail):
        pytest.fail("nothing is begun")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    return str(caught.value)


def test_as_it_is_nothing_is_said():
    with backend.prepared(pytest.fail):
        assert jax.numpy.zeros(1).dtype == "float32"


def test_numbers_have_32_bits_within_and_what_they_had_after(configured):
    configured("jax_enable_x64", True)
    said = []
    with backend.prepared(said.append):
        assert jax.numpy.arange(3.0).dtype == "float32"
    assert jax.numpy.arange(3.0).dtype == "float64"
    (line,) = said
    assert line.startswith("JAX_ENABLE_X64 has no effect")


def test_without_compilation_nothing_is_trained(configured):
    configured("jax_disable_jit", True)
    assert refused().startswith("JAX_DISABLE_JIT=")


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no CUDA\nthat is")])
def test_a_platform_that_is_not_here_is_named(error, monkeypatch):
    def failing():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", failing)
    assert refused().startswith("JAX_PLATFORMS=cuda: no such device can be used here")


def test_too_few_addresses_are_refused_before_a_compiler_aborts(monkeypatch):
    monkeypatch.setattr(backend, "addresses", lambda: 2**31)
    assert refused().startswith("ulimit -v: 2.0 GiB of addresses; accepted: at least 3 GiB")
    monkeypatch.setattr(backend, "addresses", lambda: 2**33)
    test_as_it_is_nothing_is_said()


def test_a_nan_that_is_looked_for_is_one_line(configured):
    configured("jax_debug_nans", True)
    with pytest.raises(RunError, match=r"^JAX_DEBUG_NANS, .*nan"), backend.prepared(pytest.fail):
        jax.jit(lambda x: x / x)(jax.numpy.zeros(()))


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 9 GiB"), RuntimeError("RESOURCE_EXHAUSTED: …")],
)
def test_too_little_memory_is_one_line(error):
    with pytest.raises(RunError, match=r"^the memory ran out: "), backend.prepared(pytest.fail):
        raise error


def test_other_errors_are_as_they_were():
    with pytest.raises(KeyError), backend.prepared(pytest.fail):
        raise KeyError("RESOURCE")


def test_the_platform_is_that_of_the_device_that_jax_was_told_to_take():
    (device,) = jax.devices("cpu")
    assert backend.platform() == jax.default_backend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        assert backend.platform() == "gpu"
        with jax.default_device(device):
            assert backend.platform() == "cpu"
        with jax.default_device("tpu"):
            assert backend.platform() == "tpu"


def product():
    x = jax.numpy.ones((2, 2))
    return str(jax.make_jaxpr(lambda x: x @ x)(x))


def test_products_are_as_exact_as_asked_where_there_is_a_choice(monkeypatch):
    plain = product()
    with backend.precise("highest"):
        assert product() == plain  # a CPU computes them in one way
    monkeypatch.setattr(backend, "platform", lambda: "gpu")
    with backend.precise("highest"):
        there, inherited = product(), backend.in_32_bits(product)
    assert "HIGHEST" in there
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inherited).result() == there
        assert pool.submit(product).result() == plain
