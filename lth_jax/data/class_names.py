"""What the classes of a dataset are called, where anybody says so."""

from __future__ import annotations

from lth_jax.data import places, prepared

# Xiao, Rasul & Vollgraf 2017, Table 2.
_FASHION = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def class_names(
    name: str, count: int, *, data_dir: str = "", manual_dir: str = "", cache_dir: str = ""
) -> tuple[str, ...]:
    """A name for each of the `count` classes of the dataset `name`; their numbers if unknown.

    Those of prepared TFDS data lie beside them, in a file `<feature>.labels.txt`. The folders are
    those of `data.load`.
    """
    numbers = tuple(map(str, range(count)))
    if name == "fashion_mnist":
        return _FASHION
    folders = places.resolve(data_dir, manual_dir, cache_dir).prepared_dirs
    folder = prepared.find(name, folders)
    files = sorted(folder.glob("*.labels.txt")) if folder else []
    try:
        lines = files[0].read_text(encoding="utf-8").splitlines() if files else []
    except (OSError, UnicodeDecodeError):
        return numbers
    names = tuple(line.strip() for line in lines if line.strip())
    return names if len(names) == count else numbers
