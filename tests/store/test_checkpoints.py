import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.errors import StoreError
from lth_jax.pruning.trees import named_leaves
from lth_jax.store import checkpoints

from ..tiny import data_file, flip_byte


class Pair(NamedTuple):
    first: object
    second: object


def example_tree():
    """Every kind of node and dtype that a training state has."""
    params = {"fc1": {"kernel": jnp.arange(6.0).reshape(2, 3) / 7, "bias": jnp.zeros(3)}}
    return {
        "state": Pair(params, {}),
        "opt": optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        "mask": {"fc1": {"kernel": jnp.array([[True, False, True], [False, True, False]])}},
        "half": (jnp.array([1.5, -2.25, 3e30], jnp.bfloat16), np.float16(0.1)),
        "counts": [np.int32(-7), jnp.array(2**31 - 1, jnp.int32), np.arange(4, dtype=np.uint8)],
        "odd": Pair(jnp.array([np.nan, np.inf, -np.inf, -0.0]), np.zeros((0, 3), np.float32)),
        "empty": {},
    }


def bits(tree):
    return {n: (np.asarray(a).dtype, np.shape(a), np.asarray(a).tobytes()) for n, a in tree.items()}


def files_of(checkpoint):
    return sorted(file for file in checkpoint.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "level_03"
    checkpoints.save(path, example_tree(), {"level": 3, "loss": float("nan")})
    return path


@pytest.fixture
def copy(saved, tmp_path):
    import shutil

    return shutil.copytree(saved, tmp_path / "level_03")


def test_a_tree_comes_back_bit_for_bit_with_its_structure(saved):
    tree = example_tree()
    arrays, meta = checkpoints.load(saved)
    assert bits(arrays) == bits(named_leaves(tree))
    filled = checkpoints.fill(tree, arrays)
    assert jax.tree.structure(filled) == jax.tree.structure(tree)
    assert isinstance(filled["state"], Pair)
    assert isinstance(filled["half"], tuple)
    assert meta["level"] == 3
    assert np.isnan(meta["loss"])


LEAVES = st.sampled_from(["float32", "bfloat16", "bool", "int32", "uint8", "float16"]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(
        # Of NumPy: JAX compiles a program for each shape and type.
        lambda shape: jnp.asarray(np.arange(math.prod(shape)).reshape(shape).astype(dtype))
    )
)
NAMES = st.text("abcXYZ019_ .-", min_size=1, max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.dictionaries(NAMES, children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.tuples(children, children).map(lambda pair: Pair(*pair)),
    ),
    max_leaves=6,
)


@settings(max_examples=15, deadline=None, database=None)
@given(tree=st.dictionaries(NAMES, TREES, max_size=3))
def test_any_tree_comes_back(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("any") / "checkpoint"
    checkpoints.save(path, tree)
    arrays, meta = checkpoints.load(path)
    assert meta == {}
    assert bits(named_leaves(checkpoints.fill(tree, arrays))) == bits(named_leaves(tree))


def test_a_checkpoint_is_looked_at_without_its_arrays(saved):
    manifest = checkpoints.read_manifest(saved)
    assert manifest.arrays["half/0"] == ((3,), "bfloat16")
    assert manifest.arrays["state/first/fc1/kernel"] == ((2, 3), "float32")
    assert manifest.arrays["counts/0"] == ((), "int32")
    assert manifest.meta["level"] == 3


def test_a_flipped_byte_in_any_file_is_noticed(copy):
    names = [file.relative_to(copy).as_posix() for file in files_of(copy)]
    assert "manifest.json" in names
    assert len(names) > 3
    for file in files_of(copy):
        content = file.read_bytes()
        for index in {0, len(content) // 2, len(content) - 1} if content else ():
            damaged = bytearray(content)
            damaged[index] ^= 0x80
            file.write_bytes(damaged)
            with pytest.raises(checkpoints.Damaged) as error:
                checkpoints.load(copy)
            assert str(copy) in str(error.value)
            assert file.name in str(error.value)
            assert "\n" not in str(error.value)
        file.write_bytes(content)
    assert bits(checkpoints.load(copy)[0]) == bits(named_leaves(example_tree()))


def test_some_arrays_are_read_as_all_are_to_the_bit(copy):
    names = list(named_leaves(example_tree()))[::-1]
    assert bits(checkpoints.read_arrays(copy, names)) == bits(
        {name: checkpoints.load(copy)[0][name] for name in names}
    )
    odd = copy.rename(copy.with_name("50% of a#b?c"))  # none of this is part of an address
    assert checkpoints.read_arrays(odd, names).keys() == dict.fromkeys(names).keys()
    odd.rename(copy)
    with pytest.raises(StoreError, match="lacks nothing/like/it"):
        checkpoints.read_arrays(copy, ["nothing/like/it"])
    flip_byte(data_file(copy))
    with pytest.raises(checkpoints.Damaged):
        checkpoints.read_arrays(copy, names)


def test_every_file_that_is_missing_or_cut_short_is_noticed(copy):
    for file in files_of(copy):
        content = file.read_bytes()
        if content:
            file.write_bytes(content[:-1])
            with pytest.raises(checkpoints.Damaged, match=file.name):
                checkpoints.load(copy)
        file.unlink()
        with pytest.raises(checkpoints.Damaged, match=rf"{file.name}.* missing"):
            checkpoints.load(copy)
        file.write_bytes(content)
    checkpoints.verify(copy)


@pytest.mark.parametrize("text", ["", "[]", "3", '"x"', "{}", '{"sha256": "0"}', "\udcff", "null"])
def test_a_manifest_that_is_none_is_damage(copy, text):
    (copy / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(checkpoints.Damaged, match=r"manifest\.json"):
        checkpoints.load(copy)


def test_a_manifest_changed_with_care_is_still_damage(copy):
    file = copy / "manifest.json"
    body = json.loads(file.read_text())
    body["meta"]["level"] = 4
    file.write_text(json.dumps(body))
    with pytest.raises(checkpoints.Damaged, match=r"manifest\.json is damaged"):
        checkpoints.load(copy)


@pytest.mark.parametrize(
    "meta",
    [
        {"layers": 3},
        {"layers": {"fc1/kernel": 3}},
        {"layers": {"fc1/kernel": [1, "2"]}},
        {"step": "5"},
        {"level": 1.5},
        {"runs": 3},
        {"runs": [{}]},
        {"runs": [{"id": ["ticket", 0, 0], "step": 1}]},
        {"runs": [{"id": ["ticket", 0, 0, "0"], "step": 1}]},
        {"runs": [{"id": ["ticket", 0, 0, 0], "step": 1, "points": [["x", 0, 0, 1, 1, 1]]}]},
    ],
)
def test_a_manifest_of_other_types_is_damage_whatever_its_checksum_says(copy, meta):
    file = copy / "manifest.json"
    body = json.loads(file.read_text()) | {"meta": meta}
    del body["sha256"]
    file.write_text(json.dumps({**body, "sha256": checkpoints._seal(body)}))
    with pytest.raises(checkpoints.Damaged, match=r"manifest\.json is none of ours"):
        checkpoints.load(copy)


def test_another_format_is_refused_and_is_no_damage(copy):
    file = copy / "manifest.json"
    body = json.loads(file.read_text()) | {"format": 99}
    del body["sha256"]
    file.write_text(json.dumps({**body, "sha256": checkpoints._seal(body)}))
    with pytest.raises(StoreError, match="has format 99; this version reads 1") as error:
        checkpoints.load(copy)
    assert not isinstance(error.value, checkpoints.Damaged)


def test_a_folder_without_a_checkpoint_is_damage(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(checkpoints.Damaged):
            checkpoints.load(path)


def test_a_save_replaces_the_checkpoint_before(copy):
    checkpoints.save(copy, {"a": np.arange(3)})
    assert list(checkpoints.load(copy)[0]) == ["a"]
    assert os.listdir(copy.parent) == ["level_03"]


def test_filling_refuses_what_does_not_fit(saved):
    arrays, _ = checkpoints.load(saved)
    kernel = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    name = "state/first/fc1/"
    assert checkpoints.fill({"kernel": kernel}, arrays, name)["kernel"].shape == (2, 3)
    for wrong, message in (
        ({"weight": kernel}, r"lacks state/first/fc1/weight \(float32\[2, 3\]\)"),
        ({"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}, r"float32\[2, 3\], not float32\[3"),
        ({"kernel": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}, r"float32\[2, 3\], not bfloat16"),
    ):
        with pytest.raises(StoreError, match=message):
            checkpoints.fill(wrong, arrays, name)


def test_a_subtree_is_nested_as_flax_names_it(saved):
    arrays, _ = checkpoints.load(saved)
    assert list(checkpoints.subtree(arrays, "mask")) == ["fc1"]
    assert checkpoints.subtree(arrays, "mask")["fc1"]["kernel"].dtype == np.bool_
    assert checkpoints.subtree(arrays, "nothing") == {}


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lth_jax.store import checkpoints
checkpoints._replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save(Path(sys.argv[1]), {"a": np.arange(5)})
"""


def test_a_killed_save_leaves_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "level_00"
    checkpoints.save(path, {"a": np.arange(3)})
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoints.load(path)[0]["a"].tolist() == [0, 1, 2]
    assert [n for n in os.listdir(tmp_path) if not n.startswith(".")] == ["level_00"]
    assert len(os.listdir(tmp_path)) == 2, "the killed save left no trace: was it killed in time?"


def test_a_checkpoint_knows_whose_it_is(tmp_path):
    """Two replicates' levels look alike, and each has sound checksums."""
    mine, other = (tmp_path / f"replicate_{index}" / "level_01" for index in (0, 1))
    for index, path in enumerate((mine, other)):
        checkpoints.save(path, {"w": np.full(3, index, np.float32)})
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    with pytest.raises(checkpoints.Damaged, match=r"it is that of 'replicate_1/level_01'"):
        checkpoints.verify(mine)
    shutil.copytree(other, tmp_path / "elsewhere")
    assert checkpoints.load(tmp_path / "elsewhere")[0]["w"].tolist() == [1, 1, 1]


def test_threads_save_and_load_at_once(tmp_path):
    """Orbax keeps what it is doing for the whole process."""
    together = threading.Barrier(4)

    def work(index):
        tree = {"w": np.full(7, index), "b": np.arange(index + 1.0)}
        for turn in range(3):
            together.wait()
            path = tmp_path / f"run_{index}" / f"turn_{turn}"
            checkpoints.save(path, tree)
            arrays, _ = checkpoints.load(path)
            assert arrays["w"].tolist() == [index] * 7

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
