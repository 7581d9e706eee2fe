"""How many multiplications each weight takes part in, counted in a traced network.

The cost of a sparse network, told from its mask alone: no kernel, no machine and no clock matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

from lth_jax.pruning.trees import PyTree, named_leaves

PER_MULTIPLY_ADD = 2
# A step of training costs as much as three forward passes: one, and in each layer a product for the
# gradient of its inputs and one for that of its weights.
PASSES_OF_A_STEP = 3


def uses_of_weights(
    apply: Callable[..., Any], variables: PyTree, x: jax.Array | jax.ShapeDtypeStruct
) -> dict[str, float]:
    """Returns in how many multiplications of one forward pass each weight of a kernel takes part.

    That is one in a dense layer, and the number of output pixels in a convolution. Nothing is
    computed. Parameters that enter no product of matrices and no convolution are left out.

    Args:
      apply: (variables, x, train, rngs) -> (outputs, new_state), as a model has it.
      variables: the network's, as arrays or shapes.
      x: one input, [1, …], or its shape.
    """
    names = list(named_leaves(variables["params"]))

    def outputs(params: PyTree, others: PyTree, x: jax.Array) -> jax.Array:
        return apply({"params": params, **others}, x, False, {})[0]

    others = {name: value for name, value in variables.items() if name != "params"}
    closed = jax.make_jaxpr(outputs)(variables["params"], others, x)
    found: dict[str, float] = {}
    inputs = closed.jaxpr.invars
    _count(closed.jaxpr, dict(zip(inputs, names, strict=False)), 1, found)
    return found


def training_operations(
    kept: Mapping[str, int], uses: Mapping[str, float], *, steps: int, batch_size: int
) -> float:
    """Returns the floating-point operations of so many steps with as many weights in each leaf."""
    forward = sum(uses[name] * count for name, count in kept.items() if name in uses)
    return float(PER_MULTIPLY_ADD * PASSES_OF_A_STEP * forward * steps * batch_size)


def _count(jaxpr: core.Jaxpr, of: dict[Any, str], times: int, found: dict[str, float]) -> None:
    """Adds what the equations of a jaxpr do with parameters.

    Args:
      jaxpr: the equations.
      of: its variables that hold a parameter, in whatever shape -> the parameter's name.
      times: how often all of it is done.
      found: parameter's name -> multiplications of each of its weights so far.
    """
    for equation in jaxpr.eqns:
        held = [of.get(v) if isinstance(v, core.Var) else None for v in equation.invars]
        products = _multiplications(equation)
        if products:
            for name, variable in zip(held, equation.invars, strict=True):
                if name:
                    each = times * products / _size(variable)
                    found[name] = found.get(name, 0) + each
            continue
        for inner in _inner(equation):
            # Arguments of a loop's condition and the like come first: the inputs are the last ones.
            last = held[len(held) - len(inner.invars) :]
            given = {v: name for v, name in zip(inner.invars, last, strict=False) if name}
            _count(inner, given, times * equation.params.get("length", 1), found)
        arrays = [(v, n) for v, n in zip(equation.invars, held, strict=True) if _shape(v)]
        if len(arrays) == 1 and (name := arrays[0][1]):
            for out in equation.outvars:
                if _size(out) == _size(arrays[0][0]):
                    of[out] = name  # transposed, cast, reshaped, or scaled by a number


def _multiplications(equation: core.JaxprEqn) -> float:
    """Returns the multiplications of a product of matrices or a convolution; 0 of all else."""
    params, out = equation.params, _size(equation.outvars[0])
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = _shape(equation.invars[0])
        return out * math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        return out * math.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
    return 0


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _size(variable: Any) -> int:
    return math.prod(_shape(variable))


def _inner(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs that an equation calls."""
    for value in equation.params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
