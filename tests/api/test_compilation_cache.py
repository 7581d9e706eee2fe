"""Where XLA keeps compiled programs: not where others can write; a damaged one is never used."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lth_jax.api.running import _keep_programs

from ..tiny import Recorder, flip_byte, tiny_spec

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def configured():
    """Gives JAX its configuration back."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def keeping(folder):
    """A spec that keeps programs in a folder."""
    return tiny_spec(execution__compilation_cache=True, data__cache_dir=str(folder))


@pytest.mark.usefixtures("configured")
def test_a_folder_that_others_can_write_is_not_used(tmp_path):
    folder = tmp_path / "xla"
    folder.mkdir()
    folder.chmod(0o777)
    observer = Recorder()
    before = getattr(jax.config, NAMES[0])
    _keep_programs(keeping(tmp_path), observer)
    ((note,),) = observer.of("note")
    assert note.startswith("the compilation cache is not used: others can write")
    assert getattr(jax.config, NAMES[0]) == before


@pytest.mark.usefixtures("configured")
def test_a_program_that_was_damaged_is_compiled_again(tmp_path):
    compilation_cache.reset_cache()
    _keep_programs(keeping(tmp_path), Recorder())

    def program(x):
        return jnp.sin(x) @ jnp.cos(x.T) + 7

    x = jnp.arange(12.0).reshape(3, 4)
    found = jax.jit(program)(x)
    files = [file for file in (tmp_path / "xla").rglob("*cache") if file.is_file()]
    assert files
    for file in files:
        flip_byte(file)
    jax.clear_caches()
    with pytest.warns(UserWarning, match="persistent compilation cache"):
        again = jax.jit(program)(x)
    assert (again == found).all()
