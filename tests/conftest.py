"""What all tests share: JAX as strict as the code allows, and no cache of the user's touched."""

import atexit
import os
import random
import shutil
import signal
import tempfile

# A shell starts its background jobs deaf to Ctrl-C, and `nohup` all to SIGHUP; what is deaf passes
# that on to the processes of tests.
for signum, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(signum) is signal.SIG_IGN:
        signal.signal(signum, heard)

# Before JAX is imported, and inherited by every process that a test starts.


def _in_memory(folder: str = "/dev/shm") -> bool:
    """Whether there is a folder in memory with room for what tests write, and run."""
    if not os.access(folder, os.W_OK):
        return False
    noexec = getattr(os, "ST_NOEXEC", 0)
    return shutil.disk_usage(folder).free > 4 * 2**30 and not os.statvfs(folder).f_flag & noexec


# Whatever a run writes waits for the disk, milliseconds for each file; memory does not wait.
if "TMPDIR" not in os.environ and _in_memory():
    os.environ["TMPDIR"] = "/dev/shm"
    tempfile.tempdir = None  # pytest has asked for it before
# Most of LLVM's optimizations cost more time than they save here, where programs run briefly. Not
# fewer than these: by level 0, jax 0.10 computes a batch norm in float64 wrongly on a CPU.
_FLAGS = os.environ.get("XLA_FLAGS", "")
if "xla_backend_optimization_level" not in _FLAGS:
    os.environ["XLA_FLAGS"] = f"{_FLAGS} --xla_backend_optimization_level=1".strip()
_CACHES = tempfile.mkdtemp(prefix="lth_jax_tests_")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = _CACHES
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # where results are bit for bit repeatable
os.environ.setdefault("MPLBACKEND", "agg")
# The processes below compile our modules once, and not every time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import jaxtyping  # noqa: E402

from . import shapes  # noqa: E402, F401  the hook names it

# Shapes and types in annotations are checked at run time, in the tests alone.
jaxtyping.install_import_hook(
    [f"lth_jax.{name}" for name in ("analysis", "native", "pruning", "training")],
    "tests.shapes.checked",
)

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile(
    "lth_jax",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lth_jax")


def pytest_configure(config):
    # Matplotlib's font cache takes seconds to build: kept with pytest's own, not the user's.
    if hasattr(config, "cache"):
        os.environ.setdefault("MPLCONFIGDIR", str(config.cache.mkdir("matplotlib")))
        # Native kernels take seconds to build: once for all tests, and for the next time.
        kernels = config.cache.mkdir("kernels")
        kernels.chmod(0o700)
        os.makedirs(os.path.join(_CACHES, "lth_jax"), exist_ok=True)
        os.symlink(kernels, os.path.join(_CACHES, "lth_jax", "kernels"))
        # Compiling is two thirds of the tests' time, and most programs are those of other tests.
        programs = str(config.cache.mkdir("programs"))
        for name, value in {
            "jax_compilation_cache_dir": programs,
            "jax_persistent_cache_min_compile_time_secs": 0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }.items():
            jax.config.update(name, value)
            os.environ[name.upper()] = str(value)  # for the processes that tests start


def pytest_addoption(parser):
    parser.addoption(
        "--slow-share", type=int, default=1, metavar="N",
        help="of the slow tests that -m selects, one of N, drawn by --seed",
    )  # fmt: skip
    parser.addoption("--seed", default="0", help="what draws them, such as a commit")


def pytest_collection_modifyitems(config, items):
    share, seed = config.option.slow_share, config.option.seed
    if share < 1:
        raise pytest.UsageError(f"--slow-share={share}; accepted: 1 or more")

    def drawn(item):
        slow = item.get_closest_marker("slow")
        return not slow or not random.Random(f"{seed} {item.nodeid}").randrange(share)

    config.hook.pytest_deselected(items=[item for item in items if not drawn(item)])
    items[:] = filter(drawn, items)


@pytest.fixture(scope="session")
def folder():
    """Where the tests' kernels are kept."""
    from lth_jax.data.directories import resolve

    return resolve().cache_dir / "kernels"


@pytest.fixture(scope="session")
def built(folder):
    """All kernels, ready to be called; without a compiler the test is skipped."""
    from lth_jax.native import build

    try:
        build.load(tuple(build.TARGETS), folder)
    except build.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def compilations():
    """A list that grows by one entry with everything XLA compiles while the test runs."""
    events = []

    def listen(name, _duration, **_):
        if name.endswith("backend_compile_duration"):
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def without_figures(monkeypatch):
    """No figures of runs and tickets are drawn, which takes seconds."""
    monkeypatch.setattr("lth_jax.report.figures.FIGURES", {})


@pytest.fixture
def single_steps(monkeypatch):
    """Chunks of one step: a pause after every one, however fast the machine."""
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)


@pytest.fixture
def trained_runs(monkeypatch):
    """Every run that is trained, and its end."""
    from .tiny import TrainedRuns

    monkeypatch.setattr(TrainedRuns, "runs", {})
    monkeypatch.setattr(TrainedRuns, "ends", {})
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    return TrainedRuns
