"""One masked array in few bytes: dense, kept values with a bitmap, or kept values with gaps."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

GAP_DTYPES = (np.uint8, np.uint16)


def encode(array: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the smallest form of an array whose pruned elements are zero, as arrays by suffix.

    `dense`: the array itself, nothing pruned. `masked`: the array, its zeros being what is pruned.
    `values` and `bits`: the kept values, and the mask, eight bits in a byte, the highest first.
    `values` and `gaps`: the kept values, and before each the number of pruned elements since the
    last one, in C order, as uint8 or uint16. The largest number of that dtype stands for that many
    pruned elements and no value; it may repeat.

    Args:
      array: any shape and dtype; mask: bool, the same shape.
    """
    flat, kept = array.ravel(), mask.ravel()
    values = flat[kept]
    forms = [{"values": values, "bits": np.packbits(kept)}]
    forms += [{"values": values, "gaps": gaps(kept, dtype)} for dtype in GAP_DTYPES]
    if kept.all():
        return {"dense": array}
    if np.array_equal(flat != 0, kept):
        forms.insert(0, {"masked": array})
    return min(forms, key=lambda form: sum(part.nbytes for part in form.values()))


def decode(
    parts: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the array and its mask that `encode` took.

    Raises:
      ValueError: the parts do not fit together, or not the shape.
    """
    for form in ("dense", "masked"):
        if form in parts:
            array = parts[form]
            if array.shape != shape:
                raise ValueError(f"an array of shape {array.shape} for {shape}")
            return array, np.ones(shape, bool) if form == "dense" else array != 0
    size, values = math.prod(shape), parts["values"]
    if "bits" in parts:
        bits = parts["bits"]
        if bits.dtype != np.uint8 or bits.shape != (-(-size // 8),):
            raise ValueError(f"{bits.size} bytes of a mask for {size} values")
        kept = np.flatnonzero(np.unpackbits(bits))
    else:
        if parts["gaps"].dtype not in GAP_DTYPES or parts["gaps"].ndim != 1:
            raise ValueError(f"gaps of {parts['gaps'].dtype}")
        kept = _places(parts["gaps"])
    if values.shape != kept.shape or (len(kept) and kept[-1] >= size):
        raise ValueError(f"{len(values)} values at {len(kept)} places of {size}")
    array, mask = np.zeros(size, values.dtype), np.zeros(size, bool)
    array[kept], mask[kept] = values, True
    return array.reshape(shape), mask.reshape(shape)


def gaps(kept: np.ndarray, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Returns the gaps before the True elements of `kept`, bool [n], as `encode` says."""
    most = np.iinfo(dtype).max
    places = np.flatnonzero(kept)
    steps = np.diff(places, prepend=-1) - 1
    fillers, rest = np.divmod(steps, most)
    out = np.full(len(places) + fillers.sum(), most, dtype)
    out[np.cumsum(fillers + 1) - 1] = rest
    return out


def _places(gaps: np.ndarray) -> np.ndarray:
    """Returns where the values lie, int64, rising."""
    ends = gaps != np.iinfo(gaps.dtype).max
    return np.cumsum(gaps.astype(np.int64))[ends] + np.arange(ends.sum())
