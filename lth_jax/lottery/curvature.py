"""When and of what the largest eigenvalue of the Hessian is measured while runs train."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lth_jax.config import Spec, duration_steps
from lth_jax.models.base import Model
from lth_jax.pruning.trees import PyTree
from lth_jax.training.curvature import Sharpness, sharpness
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Examples, TrainState, examples_at
from lth_jax.training.tasks import Objective


class CurvatureMeter:
    """Measures as `config.curvature` says.

    The loss is that of training, in which a batch norm takes a batch's own statistics, of the first
    training examples in batches of that size; without augmentation, label smoothing included.

    Args:
      spec: of the experiment, under the options of the branch that trains.
      model: its network. Native code has no second derivatives: it is computed by XLA.
      pixels: how stored images become what the network sees.
      objective: what it is trained on.
      train: the training examples.
      steps_per_epoch: of the trunk.

    Attributes:
      steps: at which steps.
      examples: of how many training examples the loss is.
      iterations: products of the Hessian and a vector.
    """

    def __init__(
        self,
        spec: Spec,
        model: Model,
        pixels: Pixels,
        objective: Objective,
        train: Examples,
        steps_per_epoch: int,
    ):
        self.steps = {duration_steps(step, steps_per_epoch) for step in spec.curvature.steps}
        wanted = min(spec.curvature.examples, len(train.targets))
        batch = min(spec.train.batch_size, wanted)
        self.examples, self.iterations = wanted // batch * batch, spec.curvature.iterations

        def batches(array: Array) -> Array:
            return array.reshape(-1, batch, *array.shape[1:])

        first = examples_at(train, slice(self.examples))
        self._batches = batches(first.inputs), batches(first.targets)
        # The same dropout, and the same beginning of the iteration, wherever it is measured.
        self._key = jax.random.key(0)

        # One function for all runs, since a program is compiled for each.
        def loss(params: PyTree, others: Any, inputs: Array, targets: Array) -> Array:
            model_state, key = others
            variables = {"params": params, **model_state}
            seen = pixels.prepared(inputs)
            outputs, _ = model.apply(variables, seen, True, {"dropout": key})
            return jnp.mean(objective.train_loss(outputs, targets))

        self._loss = loss

    def measure(self, state: TrainState, mask: PyTree) -> Sharpness:
        """Returns the largest eigenvalue in the weights that `mask` has, of dense parameters."""
        others = state.model_state, self._key
        return sharpness(
            self._loss, state.params, mask, self._batches, others, self._key,
            iterations=self.iterations,
        )  # fmt: skip
