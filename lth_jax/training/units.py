"""Which axes of a network's parameters are units that may change places, found in its trace.

The hidden units of a layer have no order: permuted alike in every array that knows of them, they
leave the network's function as it is. Here each axis of each array in a traced network has a label,
and operations unite labels: a product unites the two axes that it sums over, a sum those of its
terms. What is left in one label is a group of axes that one permutation goes through: a channel of
a convolution is in its kernel, its bias, its norm and the next layer's kernel, and a channel of a
residual stream in every block of its stage.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.pruning.units import Group
from lth_jax.training.unit_labels import Label, Labels


def unit_groups(
    apply: Callable[..., Any], variables: PyTree, x: jax.Array | jax.ShapeDtypeStruct
) -> list[Group]:
    """Returns the groups of a network's hidden units, in the order in which the data meet them.

    Nothing is computed. Where an operation is not known to leave units alone, they stay in place.

    Args:
      apply: (variables, x, train, rngs) -> (outputs, new_state), as a model has it.
      variables: the network's, as arrays or shapes.
      x: an input, [1, …], or its shape.
    """

    def outputs(variables: PyTree, x: jax.Array) -> jax.Array:
        return apply(variables, x, False, {})[0]

    closed = jax.make_jaxpr(outputs)(variables, x)
    leaves, labels = named_leaves(variables), Labels()
    *own, given = closed.jaxpr.invars
    known: list[list[Label]] = [[labels.new(size) for size in _shape(one)] for one in own]
    results = _trace(closed.jaxpr, [*known, labels.fixed(_shape(given))], labels)
    for label in itertools.chain(*results):
        labels.fix(label)
    return labels.groups(dict(zip(leaves, known, strict=True)))


ELEMENTWISE = {
    "abs", "add", "add_any", "and", "ceil", "clamp", "convert_element_type", "copy", "copy_p",
    "cos", "div", "eq", "erf", "erf_inv", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne",
    "neg", "not", "optimization_barrier", "or", "pow", "reduce_precision", "round", "rsqrt",
    "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip
REDUCTIONS = {
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
}  # fmt: skip


def _trace(jaxpr: core.Jaxpr, given: Sequence[list[Label]], labels: Labels) -> list[list[Label]]:
    """Returns the labels of a jaxpr's results, and unites those that its operations unite."""
    of: dict[Any, list[Label]] = dict(zip(jaxpr.invars, given, strict=True))
    of |= {constant: labels.fixed(_shape(constant)) for constant in jaxpr.constvars}

    def read(variable: Any) -> list[Label]:
        if not _shape(variable):
            return []
        return of[variable] if isinstance(variable, core.Var) else labels.fixed(_shape(variable))

    for equation in jaxpr.eqns:
        known = [read(variable) for variable in equation.invars]
        found = _through(equation, known, labels)
        if found is None:  # nothing is known of it: all stays in place
            for label in itertools.chain(*known):
                labels.fix(label)
            found = [labels.fixed(_shape(out)) for out in equation.outvars]
        of.update(zip(equation.outvars, found, strict=True))
    return [read(out) for out in jaxpr.outvars]


def _through(
    equation: core.JaxprEqn, known: list[list[Label]], labels: Labels
) -> list[list[Label]] | None:
    """Returns the labels of what an operation gives; None of one that is not known."""
    name, params, shape = equation.primitive.name, equation.params, _shape(equation.outvars[0])
    if name in ELEMENTWISE:
        return _united(equation, known, labels)
    if name == "dot_general":
        return [_product(params["dimension_numbers"], known[0], known[1], labels)]
    if name == "conv_general_dilated":
        return [_convolution(equation, known[0], known[1], labels)]
    if name in REDUCTIONS:
        for axis in params["axes"]:
            labels.keep_whole(known[0][axis])
        return [[label for axis, label in enumerate(known[0]) if axis not in params["axes"]]]
    if name == "broadcast_in_dim":
        before = _shape(equation.invars[0])
        out: list[Label] = [None] * len(shape)
        for axis, at in enumerate(params["broadcast_dimensions"]):
            out[at] = known[0][axis] if before[axis] == shape[at] else None
        return [out]
    if name == "transpose":
        return [[known[0][axis] for axis in params["permutation"]]]
    if name == "squeeze":
        return [[label for axis, label in enumerate(known[0]) if axis not in params["dimensions"]]]
    if name == "reshape":
        return [_reshaped(_shape(equation.invars[0]), shape, known[0], labels)]
    if name in ("pad", "slice") or name.startswith("reduce_window"):
        return [_windowed(equation, known[0], labels)]
    inner = [value for value in params.values() if isinstance(value, core.ClosedJaxpr)]
    if (
        len(inner) == 1
        and name not in ("scan", "while")
        and len(inner[0].jaxpr.invars) == len(known)
    ):
        return _trace(inner[0].jaxpr, known, labels)
    return None


def _united(
    equation: core.JaxprEqn, known: list[list[Label]], labels: Labels
) -> list[list[Label]] | None:
    """Returns labels of arrays that are combined entry by entry; axes of one entry are spread."""
    shape = _shape(equation.outvars[0])
    out: list[Label] = [None] * len(shape)
    for variable, own in zip(equation.invars, known, strict=True):
        sizes = _shape(variable)
        if sizes and len(sizes) != len(shape):
            return None
        for axis, label in enumerate(own):
            if sizes[axis] == shape[axis]:
                out[axis] = labels.unite(out[axis], label)
            elif sizes[axis] != 1:
                return None
    return [list(out) for _ in equation.outvars]


def _product(numbers: Any, left: list[Label], right: list[Label], labels: Labels) -> list[Label]:
    (summed_left, summed_right), (batch_left, batch_right) = numbers
    for one, other in zip(summed_left, summed_right, strict=True):
        labels.unite(left[one], right[other])
    out = [
        labels.unite(left[one], right[other])
        for one, other in zip(batch_left, batch_right, strict=True)
    ]
    out += [v for axis, v in enumerate(left) if axis not in (*summed_left, *batch_left)]
    return out + [v for axis, v in enumerate(right) if axis not in (*summed_right, *batch_right)]


def _convolution(
    equation: core.JaxprEqn, images: list[Label], kernel: list[Label], labels: Labels
) -> list[Label]:
    params = equation.params
    spec = params["dimension_numbers"]
    (batch, channels, *places), (features, inputs, *window) = spec.lhs_spec, spec.rhs_spec
    for label in (*(images[axis] for axis in places), *(kernel[axis] for axis in window)):
        labels.fix(label)
    labels.unite(images[channels], kernel[inputs])
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        for label in (images[channels], kernel[inputs], kernel[features]):
            labels.fix(label)
    out = labels.fixed(_shape(equation.outvars[0]))
    out[spec.out_spec[0]], out[spec.out_spec[1]] = images[batch], kernel[features]
    return out


def _windowed(equation: core.JaxprEqn, images: list[Label], labels: Labels) -> list[Label]:
    """Returns labels under padding, cropping or pooling, in which some axes take no part."""
    before, after = _shape(equation.invars[0]), _shape(equation.outvars[0])
    window = equation.params.get("window_dimensions", (1,) * len(before))
    widths = equation.params.get("padding_config") or equation.params.get("padding")
    out = labels.fixed(after)
    for axis, label in enumerate(images):
        padded = widths is not None and any(widths[axis])
        # A crop that keeps the size keeps all: it has no room to turn around.
        if before[axis] == after[axis] and window[axis] == 1 and not padded:
            out[axis] = label
        else:
            labels.fix(label)
    return out


def _reshaped(
    before: Sequence[int], after: Sequence[int], known: list[Label], labels: Labels
) -> list[Label]:
    """Returns labels of axes that were split up, or made one."""
    out: list[Label] = [None] * len(after)
    # Axes of one entry are along nothing.
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    while old and new:
        mine, theirs = [old.pop(0)], [new.pop(0)]
        while (gap := _entries(before, mine) - _entries(after, theirs)) != 0:
            if gap < 0:
                mine.append(old.pop(0))
            else:
                theirs.append(new.pop(0))
        if len(theirs) == 1:
            parts = [(before[axis], known[axis]) for axis in mine]
            label = parts[0][1] if len(parts) == 1 else labels.new(after[theirs[0]], parts)
            out[theirs[0]] = label
        elif len(mine) == 1:
            split = labels.parts(known[mine[0]], [after[axis] for axis in theirs])
            for axis, label in zip(theirs, split, strict=True):
                out[axis] = label
        else:
            for axis in mine:
                labels.fix(known[axis])
            for axis in theirs:
                out[axis] = labels.fixed([after[axis]])[0]
    return out


def _entries(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())
