"""Files of a stranger, with right checksums: one line each, before anything large is read."""

import io
import json
import tracemalloc
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax import load_compact, load_ticket, load_trained
from lth_jax.cli import export
from lth_jax.errors import SpecError, StoreError
from lth_jax.export import containers, sparse

from ..tiny import tiny_spec, train

KERNEL = "fc1/kernel"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A ticket of a late rewinding as safetensors and npz, and a compact network."""
    folder = tmp_path_factory.mktemp("forged")
    spec = tiny_spec(levels=1, replicates=1, branches=(), rewind__step="5")
    run = str(train(folder / "run", spec).path)
    for kind in ("safetensors", "npz", "compact"):
        arguments = [run, "--level=1", f"--format={kind}", f"--out={folder / kind}"]
        assert export.main(arguments) == 0
    return folder


def forged(file, change, file_format="safetensors"):
    """A file whose arrays and metadata `change` has changed, its checksum made anew."""
    arrays, metadata = containers.read(file)
    metadata = {n: v for n, v in metadata.items() if n not in ("version", "dtypes", "sha256")}
    change(arrays, metadata)
    target = file.with_name("stranger")
    containers.write(target, arrays, metadata, file_format)
    return target


def refused(load, file):
    with pytest.raises(StoreError) as error:
        load(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value).replace(str(file), "")) < 200
    return str(error.value)


def put(**values):
    """Changes metadata."""
    return lambda _, metadata: metadata.update({n: json.dumps(v) for n, v in values.items()})


def array(name, change):
    return lambda arrays, _: arrays.update({name: change(arrays[name])})


def without(name):
    return lambda arrays, metadata: (arrays if name in arrays else metadata).pop(name)


def optimizer(spec):
    spec["train"]["optimizer"] = "sparkle"
    return spec


TICKETS = {
    "masks cut short": (array(f"mask/{KERNEL}", lambda a: a[:-1]), "the mask of fc1/kernel has"),
    "a mask of floats": (array(f"mask/{KERNEL}", lambda a: a.astype(np.float32)), "the mask of"),
    "no mask of a leaf": (without(f"mask/{KERNEL}"), "its mask is not of its parameters"),
    "no masks": (
        lambda arrays, _: [arrays.pop(n) for n in list(arrays) if n.startswith("mask/")],
        "its mask is not of its parameters",
    ),
    "other trained shapes": (
        array(f"trained/params/{KERNEL}", lambda a: a[:-1]), "its trained parameters are not",
    ),
    "another count": (put(layers={KERNEL: [1, 7]}), "fc1/kernel has 512 weights, not 7"),
    "an array too many": (lambda arrays, _: arrays.update(bomb=np.zeros(9)), "an array bomb"),
    "a large array": (
        lambda arrays, _: arrays.update({"rewound/opt_state/bomb": np.zeros(600)}),
        "rewound/opt_state/bomb has 600 numbers",
    ),
    "no optimizer state": (
        lambda arrays, _: [arrays.pop(n) for n in list(arrays) if "opt_state" in n], "lacks",
    ),
    "a level that is text": (put(level="1"), "its level is '1'"),
    "a negative step": (put(step=-3), "its step is -3"),
    "a step that is true": (put(step=True), "its step is True"),
    "another kind of file": (
        lambda _, metadata: metadata.update(kind="\x1b[2J" * 50), r"an '\x1b[2J\x1b[2J",
    ),
    "no level": (without("level"), "it has no 'level'"),
    "no spec": (without("spec"), "it has no 'spec'"),
    "a spec that is a list": (put(spec=[]), "its spec is none"),
    "own rows that are none": (put(own=True), "its own rows are none"),
    "a spec of nonsense": (put(spec={"train": 3}), ""),
    "layers that are none": (put(layers=3), "no whole file"),
    "a number of thousands of digits": (
        lambda _, metadata: metadata.update(layers="9" * 5000), "no whole file",
    ),
    "no JSON": (lambda _, metadata: metadata.update(level="{"), "no whole file"),
    "deep JSON": (lambda _, metadata: metadata.update(layers="[" * 100_000), "no whole file"),
}  # fmt: skip


@pytest.mark.parametrize("name", TICKETS)
def test_a_forged_ticket_is_one_line(files, name):
    change, said = TICKETS[name]
    assert said in refused(load_ticket, forged(files / "safetensors", change))


def test_an_unknown_optimizer_is_one_line(files):
    def change(_, metadata):
        metadata["spec"] = json.dumps(optimizer(json.loads(metadata["spec"])))

    file = forged(files / "npz", change, "npz")
    with pytest.raises(SpecError, match=r"'sparkle' is not the package's; accepted: config=FILE"):
        load_ticket(file)
    assert load_trained(file)[0].keys() == load_trained(files / "npz")[0].keys()


COMPACTS = {
    "no places": (without(f"{KERNEL}.bits"), "no whole file"),
    "an image of nothing": (put(image_shape=[0, 8, 1]), "its layers have"),
    "another image": (put(image_shape=[9, 9, 1]), "no whole file"),
    "a negative shape": (put(shapes={KERNEL: [-1, 8]}), "has the shape [-1, 8]"),
    "a huge shape": (put(shapes={KERNEL: [1 << 20, 1 << 20]}), "weights"),
    "huge units": (put(units={"fc1": 1 << 40}), "its layers have"),
    "a layer of another kind": (put(layers_in_order=[["sparkle"]]), "a layer of kind 'sparkle'"),
    "layers in disorder": (put(layers_in_order=[["dense", "output", 0, 1]]), "no whole file"),
    "pixels that are none": (put(pixels=3), "no whole file"),
}


@pytest.mark.parametrize("name", COMPACTS)
def test_a_forged_compact_network_is_one_line(files, name):
    change, said = COMPACTS[name]
    if name == "no places":

        def change(arrays, _):
            for part in [n for n in arrays if n.startswith(f"{KERNEL}.")]:
                arrays.pop(part)

    assert said in refused(load_compact, forged(files / "compact", change))


KEPT = np.arange(40).reshape(5, 8) % 3 == 0
VALUES = np.ones(int(KEPT.sum()), np.float32)


@pytest.mark.parametrize(
    "parts",
    [
        {"values": VALUES, "bits": np.packbits(KEPT)[:-1]},
        {"values": VALUES, "bits": np.packbits(KEPT).astype(np.int32)},
        {"values": VALUES[:-1], "bits": np.packbits(KEPT)},
        {"values": VALUES, "gaps": np.full(len(VALUES), 100, np.uint8)},  # beyond the end
        {"values": VALUES, "gaps": np.full(len(VALUES), -2, np.int8)},  # before the beginning
        {"dense": np.zeros((8, 5))},
        {"masked": np.zeros(40)},
    ],
)
def test_places_that_do_not_fit_are_refused(parts):
    with pytest.raises(ValueError, match=r"for|at|gaps"):
        sparse.decode(parts, KEPT.shape)


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_inflated(files, tmp_path):
    """A small archive that holds a gigabyte, with headers that agree with its directory."""
    file = tmp_path / "bomb"
    (tmp_path / "ticket").write_bytes((files / "npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "ticket") as source, zipfile.ZipFile(file, "w", 8) as target:
        for member in source.infolist():
            if member.filename != f"trained/params/{KERNEL}.npy":
                target.writestr(member, source.read(member))
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 28,)}
        )
        with target.open(f"trained/params/{KERNEL}.npy", "w", force_zip64=True) as out:
            out.write(header.getvalue())
            for _ in range(64):
                out.write(bytes(1 << 24))
    assert file.stat().st_size < 4 << 20
    tracemalloc.start()
    try:
        assert "its trained parameters are not" in refused(load_ticket, file)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["npz", "compact"])
def test_what_no_memory_holds_is_refused_however_consistent(files, kind, monkeypatch):
    monkeypatch.setattr(containers.machine, "memory", lambda: 1000.0)
    load = load_compact if kind == "compact" else load_ticket
    assert refused(load, files / kind).endswith("not enough memory; nothing was changed")


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    file = tmp_path / "file"
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", content.getvalue())
    assert "another length than its header says" in refused(containers.read, file)


@pytest.mark.parametrize("kind", ["safetensors", "npz", "compact"])
def test_whatever_byte_changes_is_one_line_or_nothing(files, kind, tmp_path):
    content = (files / kind).read_bytes()
    load = load_compact if kind == "compact" else load_trained
    whole = jax.device_get(load(files / kind)) if kind != "compact" else None

    @given(st.integers(0, len(content) - 1), st.integers(1, 255), st.booleans())
    def one(index, change, cut):
        damaged = bytearray(content)
        damaged[index] ^= change
        (tmp_path / "file").write_bytes(content[:index] if cut else damaged)
        said, found = "", None
        try:
            found = load(tmp_path / "file")
        except StoreError as error:
            said = str(error)
        assert "\n" not in said
        assert said or not cut
        if found is not None and whole is not None:
            jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), whole)

    one()
