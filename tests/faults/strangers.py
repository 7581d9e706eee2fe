"""What a stranger, a camera or a typing error brings: forged files, odd images, nonsense arguments.

Forged files have right checksums: only their content is wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lth_jax import load_compact, load_ticket, load_trained
from lth_jax.cli import COMMANDS, export, inspect, report
from lth_jax.cli import list as list_command
from lth_jax.data import cache, image_files
from lth_jax.data.dataset import Dataset, checked, facts_of
from lth_jax.errors import UserError
from lth_jax.export import containers
from lth_jax.native import build
from lth_jax.store import checkpoints, record
from lth_jax.store.tables import RESULTS

from . import damage
from .fields import FIELDS, WORDS
from .judgement import Wrong, check, check_line
from .scenarios import command, copy, files, table_of

FORMATS = ("safetensors", "npz", "compact")
KERNEL = "dense_conv"
LOOKS = [
    image_files.Look((28, 28, 1), True, 0.0, 0.7),
    image_files.Look((8, 8, 1), True, 1.0, 0.9),
    image_files.Look((32, 32, 3), False, None, 1.0),
]


class Strangers:
    """Files that faults of this kind begin with.

    Args:
      folder: for them.
      runs: finished run directories.
    """

    def __init__(self, folder: Path, runs: list[Path]):
        self.folder, self.runs, self.what = folder, runs, ""
        folder.mkdir()
        self.exports = []
        for number, path in enumerate(runs):
            for kind in FORMATS:
                file = folder / f"{number}.{kind}"
                answer = command(
                    export.main, str(path), "--level=1", f"--format={kind}", f"--out={file}"
                )
                if answer.status == 0:  # not every network has a compact form
                    self.exports.append(file)
        self.sound = folder / "sound"  # a library as a compiler makes it, and what it must give
        code = "".join(f'extern "C" int {n}() {{ return 7; }}\n' for n in build.TARGETS[KERNEL])
        source = folder / "library.cc"
        source.write_text(code)
        done = build._call(("c++", "-shared", "-fPIC", str(source), "-o", str(self.sound)))
        assert done.returncode == 0, done.stderr
        self.compiler = folder / "compiler"
        self.compiler.write_text(
            f'#!/bin/sh\nfor last; do :; done\n[ "$last" = --version ] || cp {self.sound} "$last"\n'
        )
        self.compiler.chmod(0o700)

    # Files that others made

    def forge(self, rng: random.Random) -> None:
        """Forges a ticket, a compact network, a cached dataset or a file of a run, and reads it."""
        rng.choice([self._forge_export, self._forge_export, self._forge_cache, self._forge_run])(
            rng
        )

    def _forge_export(self, rng: random.Random) -> None:
        file = rng.choice(self.exports)
        arrays, metadata = containers.read(file)
        kept = {n: v for n, v in metadata.items() if n not in ("version", "dtypes", "sha256")}
        what = _change_arrays(rng, arrays) if rng.random() < 0.5 else _change_texts(rng, kept)
        self.what = f"{file.suffix[1:]}: {what}"
        target = self.folder / "forged"
        with contextlib.suppress(ValueError, TypeError):  # not even a forger can write it
            containers.write(target, arrays, kept, rng.choice(containers.FORMATS))
        if file.suffix == ".compact":
            with refused():
                network = load_compact(target)
                network.logits(np.zeros((1, *network.shape), np.uint8))
            return
        with refused():
            ticket = load_ticket(target)
            jax.tree.map(_like, ticket.mask, ticket.state.params)
        with refused():
            load_trained(target)

    def _forge_cache(self, rng: random.Random) -> None:
        images = np.zeros((6, 4, 4, 1), np.uint8)
        labels = np.arange(6, dtype=np.int32) % 3
        dataset = Dataset("forged", images, labels, images[:3], labels[:3], 3, 1 / 255, "here")
        folder = self.folder / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        cache.store(folder, dataset, version="1.0.0", source="ab")
        (file,) = folder.iterdir()
        _, header, rest = file.read_bytes().split(b"\n", 2)
        content = json.loads(header)
        what = damage.edit_object(rng, content, rng.choice(["key", "value", "hostile"]))
        self.what = f"data cache: {what}"
        body = json.dumps(content).encode() + b"\n" + rest
        file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        with refused():
            found = cache.load(folder, "forged")
            if found is not None:
                checked(found, facts_of(dataset))

    def _forge_run(self, rng: random.Random) -> None:
        path = copy(rng.choice(self.runs), self.folder / "run")
        names = [n for n in files(path) if n.endswith(("spec.json", ".csv", "manifest.json"))]
        name = rng.choice(names)
        file = path / name
        self.what = f"{name}: {_reseal(rng, file)}"
        level = f"--level={rng.choice([0, 1])}"
        calls: list[tuple[Any, list[str]]] = [
            (inspect.main, [str(path)]),
            (inspect.main, [str(path), "--json", level]),
            (list_command.main, [str(path)]),
            (report.main, [str(path)]),
            (export.main, [str(path), level, "--format=npz", f"--out={self.folder / 'out'}"]),
        ]
        for main, given in rng.sample(calls, 2):
            check(command(main, *given))

    # Images

    def show_image(self, rng: random.Random) -> None:
        """Reads an odd image file as `predict` does."""
        file = self.folder / "image"
        file.unlink(missing_ok=True)
        mode = rng.choice(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr"])
        kind = rng.choice(["PNG", "TIFF", "GIF", "BMP", "JPEG", "PPM", "WEBP", "ICO", "TGA"])
        sides = rng.choice([(1, 1), (1, 40), (40, 1), (8, 8), (28, 28), (33, 57)])
        values = _pixels(rng, mode, sides)
        self.what = f"{kind}, {mode}, {sides}"
        try:
            Image.frombytes(mode, sides, values).save(file, kind)
        except Exception:  # Pillow writes that as no such file
            file.write_bytes(values)
        if rng.random() < 0.6:
            kind = rng.choice(list(damage.DAMAGES)[:4])
            self.what += f", {damage.DAMAGES[kind](rng, file)}"
        look = rng.choice(LOOKS)
        with refused():
            found = image_files.read(file, look)
            image = found.image
            if image.shape != look.shape or not np.isfinite(image).all():
                raise Wrong(f"an image of {image.shape}")
            if image.min() < 0 or image.max() > 1:
                raise Wrong(f"pixels of {image.min()} to {image.max()}")
        if file.is_dir() and not file.is_symlink():
            file.rmdir()

    # Caches

    def spoil_cache(self, rng: random.Random) -> None:
        """Damages a native library or a cached dataset: none that is not whole is ever used."""
        rng.choice([self._spoil_library, self._spoil_dataset])(rng)

    def _spoil(self, rng: random.Random, file: Path) -> None:
        kind = rng.choice(["bit flip", "truncation", "plausible edit", "something else"])
        self.what = f"{file.name}: {damage.DAMAGES[kind](rng, file)}"

    def _spoil_library(self, rng: random.Random) -> None:
        folder = self.folder / "libraries"
        before = os.environ.get("CXX")
        os.environ["CXX"] = str(self.compiler)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            content = self.sound.read_bytes()
            # Not yet loaded: a library that is changed while it is in use ends any process.
            file = folder / build._file_name(f"{KERNEL}-{build._key(build._compiler())}", content)
            file.write_bytes(content)
            file.chmod(0o700)
            self._spoil(rng, file)
            try:
                library = build._open(KERNEL, folder)
            except build.Unavailable as error:
                check_line(str(error))
                return
            if getattr(library, build.TARGETS[KERNEL][0])() != 7:
                raise Wrong("another library is used")
        finally:
            os.environ.pop("CXX")
            if before is not None:
                os.environ["CXX"] = before

    def _spoil_dataset(self, rng: random.Random) -> None:
        images = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4, 1)
        labels = np.arange(6, dtype=np.int32) % 3
        dataset = Dataset("spoilt", images, labels, images[:3], labels[:3], 3, 1 / 255, "here")
        folder = self.folder / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        cache.store(folder, dataset, version="1.0.0", source="ab")
        (file,) = folder.iterdir()
        self._spoil(rng, file)
        found = cache.load(folder, "spoilt")
        if found is None:
            return
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            if not np.array_equal(getattr(found, name), getattr(dataset, name)):
                raise Wrong(f"other {name}")

    # Arguments

    def say_nonsense(self, rng: random.Random) -> None:
        """Gives a command arguments that nobody means."""
        path = str(rng.choice(self.runs))
        words = [path, f"{path}/", f"{path}/spec.json", "nowhere", ".", "/dev/null", *WORDS]
        flags = [
            "--level", "--replicate", "--branch", "--layer", "--json", "--quick", "--format",
            "--weights", "--index", "--config", "--trust", "--what", "--nonsense", "--", "-x",
        ]  # fmt: skip
        mains = {name: importlib.import_module(where).main for name, (where, _) in COMMANDS.items()}
        name = rng.choice(list(mains))
        given = [path] if name in ("inspect", "export", "predict") and rng.random() < 0.7 else []
        for _ in range(rng.randint(1, 4)):
            flag, word = rng.choice(flags), rng.choice([*words, "-1", "99", "1", "0"])
            given += rng.choice([[word], [flag], [f"{flag}={word}"], [flag, word]])
        if name == "run":  # else one of a thousand would begin an experiment of days
            given.insert(rng.randrange(len(given) + 1), f"--config.{rng.choice(FIELDS)}=\x00")
        given = [one for one in given if not one.startswith("--out")]
        if name == "report":  # which writes: into a folder where nothing is lost
            given.append(f"--out={self.folder}/comparison")
        self.what = f"{name} {given}"[:300]
        with _inside(self.folder):
            check(command(mains[name], *given))


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Takes a refusal for an answer, if it is one line."""
    try:
        yield
    except UserError as error:
        check_line(str(error))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _like(mask: jax.Array, leaf: jax.Array) -> None:
    if mask.shape != leaf.shape or mask.dtype != jnp.bool_:
        raise Wrong(f"a mask of {mask.dtype} {mask.shape} for {leaf.shape}")


def _change_arrays(rng: random.Random, arrays: dict[str, Any]) -> str:
    """Changes one array, takes it away, or adds one."""
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    changes: dict[str, Callable[[], Any]] = {
        "cut": lambda: array[: len(array) // 2] if array.ndim else array,
        "flat": array.ravel,
        "nothing": lambda: array[:0] if array.ndim else array,
        "one more axis": lambda: array[None],
        "turned": lambda: array.T,
        "twice": lambda: np.concatenate([array.ravel()] * 2),
        "dtype": lambda: array.astype(rng.choice([np.int8, np.float64, np.bool_, np.uint16])),
        "large numbers": lambda: np.full_like(array, np.iinfo(array.dtype).max
                                              if array.dtype.kind in "iu" else 1),
        "nan": lambda: array * np.nan if array.dtype.kind == "f" else ~array,
    }  # fmt: skip
    what = rng.choice([*changes, "gone", "more", "renamed"])
    if what in changes:
        arrays[name] = changes[what]()
    elif what == "more":
        arrays[rng.choice(["x", f"{name}/x", f"{name}.x", "../x", ""])] = array
    else:
        del arrays[name]
        if what == "renamed":
            arrays[f"{name}x"] = array
    return f"{name}, {what}"


def _change_texts(rng: random.Random, metadata: dict[str, str]) -> str:
    """Changes one entry of a file's metadata, which are JSON mostly."""
    name = rng.choice(sorted(metadata))
    what = rng.choice(["key", "value", "hostile", "text"])
    try:
        whole = {name: json.loads(metadata[name])}
    except ValueError:
        what = "text"
        whole = {}
    if what == "text":
        metadata[name] = rng.choice(
            ["", "{", "null", "[" * 100_000, "9" * 5000, "\x1b[2J", "1e999"]
        )
        return f"{name}, text"
    done = damage.edit_object(rng, whole, what)
    del metadata[name]
    metadata.update({name: json.dumps(value) for name, value in whole.items()})
    return f"{name}, {done}"


def _reseal(rng: random.Random, file: Path) -> str:
    """Changes a file of a run and makes its checksums anew."""
    if file.suffix == ".csv":
        table: Any = RESULTS if file.name == "results.csv" else table_of(file)
        rows = table.from_csv(file.read_text())
        index = rng.randrange(len(rows))
        name = rng.choice(table.columns)
        kind = table.types[name]
        value = rng.choice({
            int: [-1, 0, 1, 2, 10**6, 2**70], float: [-1.0, 0.0, 0.5, 7.5, float("nan"), 1e308],
            str: ["", "x", "ticket", "../x", "\x1b[2J", "$x$", "x" * 5000, 'a,"b'],
        }[kind])  # fmt: skip
        fields = {c: getattr(rows[index], c) for c in table.columns} | {name: value}
        rows[index] = table.kind(**fields)
        file.write_text(table.to_csv(rows))
        return f"{name}={value!r} of row {index}"[:200]
    content = json.loads(file.read_text())
    what = damage.edit_object(rng, content, rng.choice(["key", "value", "hostile"]))
    if file.name == "spec.json":
        content = record.sealed(content)
    else:
        content.pop("sha256", None)
        content["sha256"] = checkpoints._seal(content)
    file.write_text(json.dumps(content))
    return what


def _pixels(rng: random.Random, mode: str, sides: tuple[int, int]) -> bytes:
    """Returns the pixels of an image in a mode of Pillow's, as bytes."""
    count = sides[0] * sides[1]
    if mode == "F":
        values = np.array([rng.choice([0.0, 1.0, 255.0, -1e30, 1e38]) for _ in range(count)], "<f4")
        if rng.random() < 0.3:
            values[rng.randrange(count)] = rng.choice([np.nan, np.inf, -np.inf])
        return values.tobytes()
    size = len(Image.new(mode, sides).tobytes())
    return rng.choice([rng.randbytes(size), bytes(size), b"\xff" * size])


KINDS = {
    "forged file": Strangers.forge,
    "odd image": Strangers.show_image,
    "damaged cache": Strangers.spoil_cache,
    "nonsense arguments": Strangers.say_nonsense,
}
