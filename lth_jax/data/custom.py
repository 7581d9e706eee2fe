"""Custom datasets: functions of a user that give arrays, which are checked and never cached."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from lth_jax.data.dataset import Dataset, checked
from lth_jax.data.directories import DataDirectories
from lth_jax.errors import DataError, first_line, nearest

_PAIRS = (("train_images", "train_labels"), ("test_images", "test_labels"))
_ARRAYS = tuple(field for pair in _PAIRS for field in pair)
# What is no image and no label has names of its own, under which arrays are taken as they are.
_INPUTS = {"train_images": "train_inputs", "test_images": "test_inputs"}
_TARGETS = {"train_labels": "train_targets", "test_labels": "test_targets"}
_AS_THEY_ARE = _INPUTS | _TARGETS
_ACCEPTED = (
    "accepted: ((train_images, train_labels), (test_images, test_labels)), or a mapping of "
    f"{', '.join(_ARRAYS)} and perhaps num_classes"
)


def check_function(name: str, function: Any) -> None:
    """Checks that `function` can be called without arguments; does not call it.

    Raises:
      DataError: it cannot.
    """
    if not callable(function):
        raise DataError(f"{name} is {function!r}; accepted: a function without arguments")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise DataError(f"{name}: {error}; accepted: a function without arguments") from None
    except ValueError:
        pass  # some callables written in C do not say what they take


def load(
    function: Callable[..., Any],
    name: str,
    directories: DataDirectories,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Dataset:
    """Returns the dataset `name` that `function` gives, called with `options`.

    Raises:
      DataError: the function fails, or what it gives is no dataset; one line.
    """
    del directories  # the function knows where its data are
    given = _named(name, _called(name, function, options))

    def taken(field: str, other: Callable[[str, str, Any], np.ndarray]) -> np.ndarray:
        own = _AS_THEY_ARE[field]
        return _plain(name, own, given[own]) if own in given else other(name, field, given[field])

    train_images, test_images = (taken(field, _images) for field in _INPUTS)
    train_labels, test_labels = (taken(field, _labels) for field in _TARGETS)
    dataset = Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=_classes(
            name, given.get("num_classes"), (train_labels, test_labels), (train_images, test_images)
        ),
        scale=1 / 255 if train_images.dtype == np.uint8 else 1.0,
        origin=f"the function {_called_as(function)}",
    )
    return checked(dataset)


def _called(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    try:
        return function(**options)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        frames = traceback.extract_tb(error.__traceback__)[1:]
        # The deepest line of the user's own file: what a library does below it says less.
        own = [frame for frame in frames if frame.filename == frames[0].filename]
        where = f" in line {own[-1].lineno} of {own[-1].filename}" if own else ""
        raise DataError(
            f"{name}: the function {_called_as(function)} raised {type(error).__name__}{where}: "
            f"{first_line(error)}"
        ) from error


def _called_as(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _named(name: str, given: Any) -> dict[str, Any]:
    """Returns what a function gave as a mapping, by the names of its fields."""
    if isinstance(given, Mapping):
        known = {*_ARRAYS, *_AS_THEY_ARE.values(), "num_classes"}
        for field in given:
            if field not in known:
                raise DataError(f"{name} gives {field!r}; {nearest(str(field), known)}")
        for field, own in _AS_THEY_ARE.items():
            if field in given and own in given:
                raise DataError(f"{name} gives {field} and {own}; accepted: one of them")
        for pair in (_INPUTS, _TARGETS):  # both splits alike
            (train, own_train), (test, own_test) = pair.items()
            if (own_train in given and test in given) or (train in given and own_test in given):
                raise DataError(
                    f"{name} gives {own_train if own_train in given else train} and "
                    f"{test if test in given else own_test}; accepted: {train} and {test}, or "
                    f"{own_train} and {own_test}"
                )
        missing = [field for field in _ARRAYS if not {field, _AS_THEY_ARE[field]} & given.keys()]
        if missing:
            raise DataError(f"{name} does not give {', '.join(missing)}; {_ACCEPTED}")
        return dict(given)
    pairs = list(given) if isinstance(given, tuple | list) else []
    if [len(pair) if isinstance(pair, tuple | list) else 0 for pair in pairs] != [2, 2]:
        size = f" of {len(pairs)}" if pairs else ""
        raise DataError(f"{name} gives a {type(given).__name__}{size}; {_ACCEPTED}")
    return dict(zip(_ARRAYS, [array for pair in pairs for array in pair], strict=True))


def _array(name: str, field: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, and whatever an array-like object raises
        raise DataError(f"{name}: {field} is no array ({first_line(error)})") from error


def _images(name: str, field: str, value: Any) -> np.ndarray:
    """Returns uint8 or float32 `[n, height, width, channels]`; features: `[n, 1, features, 1]`."""
    import jax.numpy as jnp

    array = _array(name, field, value)
    accepted = (
        "accepted: uint8 or floats of [n, height, width, channels], [n, height, width] or "
        "[n, features]"
    )
    # JAX's notion: bfloat16 is a float to it, not to NumPy.
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    if not (floats or array.dtype == np.uint8) or array.ndim not in (2, 3, 4):
        raise DataError(f"{name}: {field} is {array.dtype.name} of shape {array.shape}; {accepted}")
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 2:
        array = array[:, None, :, None]
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its like
        return np.ascontiguousarray(array, dtype=np.float32 if floats else np.uint8)


def _plain(name: str, field: str, value: Any) -> np.ndarray:
    """Returns inputs or targets as they are: floats as float32, integers and bools as int32."""
    import jax.numpy as jnp

    array = _array(name, field, value)
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    integers = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    if not (floats or integers) or not array.ndim:
        raise DataError(
            f"{name}: {field} is {array.dtype.name} of shape {array.shape}; accepted: floats, "
            "integers or bools of [n, …]"
        )
    limits = np.iinfo(np.int32)
    if integers and array.size:
        least, most = int(array.min()), int(array.max())
        if least < limits.min or most > limits.max:
            raise DataError(f"{name}: {field} has values from {least} to {most}; accepted: int32")
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its like
        return np.ascontiguousarray(array, dtype=np.float32 if floats else np.int32)


def _labels(name: str, field: str, value: Any) -> np.ndarray:
    array = _array(name, field, value)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim != 1:
        raise DataError(
            f"{name}: {field} is {array.dtype.name} of shape {array.shape}; accepted: integers [n]"
        )
    largest = np.iinfo(np.int32).max - 1
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= largest:
        raise DataError(
            f"{name}: {field} has labels from {array.min()} to {array.max()}; accepted: 0 and more"
        )
    return array.astype(np.int32)


def _classes(
    name: str, given: Any, labels: Sequence[np.ndarray], inputs: Sequence[np.ndarray]
) -> int:
    """Returns the number of classes: the given one, else one more than the greatest label.

    Where there is a target for each token, these are of the same classes. Floats have none.
    """
    if labels[0].dtype == np.float32:
        if given is not None:
            raise DataError(f"{name}: num_classes is {given!r}; accepted: none with float targets")
        return 0
    if inputs[0].dtype == np.int32 and inputs[0].shape == labels[0].shape:
        labels = [*labels, *inputs]
    if given is None:
        return 1 + max(int(part.max(initial=0)) for part in labels)
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise DataError(f"{name}: num_classes is {given!r}; accepted: an integer from 1 on")
    return int(given)
