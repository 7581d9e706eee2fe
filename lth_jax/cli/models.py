"""`lth-jax models`: the networks that the package brings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lth_jax.cli.command import Parser, exit_status
from lth_jax.models import MODELS, Member
from lth_jax.pruning.trees import size

CLASSES = 10
IMAGE = (32, 32, 3)
DIGIT = (28, 28, 1)  # of MNIST, which the network without convolutions is for
TOKENS = (64,)  # for the network of tokens
DESCRIPTION = f"""Lists the networks that the package brings, a line each, with the number of their
parameters for {CLASSES} classes on images of 32×32×3 (`mlp`: 28×28×1; `gpt`: 64 tokens). To take
one: `--config.model.name=NAME`."""


def main(arguments: Sequence[str]) -> int:
    """Prints the networks; returns the exit status."""
    return exit_status(lambda: _models(arguments))


def _models(arguments: Sequence[str]) -> None:
    Parser("models", description=DESCRIPTION).parse(arguments)
    width = max(map(len, MODELS))
    for name, member in MODELS.items():
        count = parameters(member, {"mlp": DIGIT, "gpt": TOKENS}.get(name, IMAGE))
        print(f"{name:<{width}}  {count:>10,}  {described(member)}", flush=True)


def parameters(member: Member, image: Sequence[int] = IMAGE) -> int:
    """Returns how many parameters a network has; none is made."""
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32 if len(image) == 3 else jnp.int32)
    variables = jax.eval_shape(member.make(CLASSES).init, jax.random.key(0), x)
    return sum(map(size, jax.tree.leaves(variables["params"])))


def described(member: Member) -> str:
    """Returns the first sentence of a network's docstring, and what makes it this member."""
    sentence = " ".join((inspect.getdoc(member.module) or "").split("\n\n")[0].split())
    sizes = ", ".join(f"{name}={value}" for name, value in member.sizes.items())
    return f"{sentence.removesuffix('.')} ({sizes})" if sizes else sentence.removesuffix(".")
