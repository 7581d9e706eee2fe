"""Index tables are those that a sort of the survivors gives: their order is part of the bits."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from lth_jax.native.layers import Layer
from lth_jax.native.packing import Packed

SIDES = st.integers(1, 5)


def sorted_entries(layer, mask):
    """Rows and columns of survivors in the forward and the transposed matrix, in C order."""
    if layer.kind == "dense":
        inputs, outputs = np.nonzero(mask)
        return (outputs, inputs), (inputs, outputs)
    rows, columns, channels, features = np.nonzero(mask)
    under = (rows << 8) + columns
    down, along = layer.strides
    residues = (channels * down + rows % down) * along + columns % along
    return (features, (channels << 16) + under), (residues, (features << 16) + under)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 300), st.integers(1, 6)), st.tuples(SIDES, SIDES, SIDES, SIDES)
    ),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    density=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    room=st.integers(1, 4),
)
def test_tables_are_those_of_a_sort(shape, strides, density, room):
    mask = np.random.default_rng(0).random(shape) < density
    layer = Layer("conv" if len(shape) == 4 else "dense", shape, strides)
    length = int(mask.sum()) + room
    packed = Packed((("w", length),), {"w": layer}, {"w": mask}).leaves["w"]
    (rows, columns), (t_rows, t_columns) = sorted_entries(layer, mask)
    order = np.lexsort((columns, rows))
    by_input = np.lexsort((t_columns[order], t_rows[order]))
    kept = len(order)
    np.testing.assert_array_equal(packed.order, np.flatnonzero(mask)[order])
    tables = packed.tables
    for found, expected in (
        (tables.column_indices, columns[order]),
        (tables.transposed_column_indices, t_columns[order][by_input]),
        (tables.value_indices, by_input),
    ):
        assert (found.shape, found.dtype) == ((length,), np.int32)
        np.testing.assert_array_equal(found[:kept], expected)
        assert not np.any(found[kept:])
    for pointers, of in ((tables.row_pointers, rows), (tables.transposed_row_pointers, t_rows)):
        begins = np.asarray(pointers)[:, 0]
        counts = np.bincount(of, minlength=len(begins) - 1)
        np.testing.assert_array_equal(np.diff(begins), counts)
