"""Measures the networks between two others, on the data of an experiment."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.config import PathsSpec
from lth_jax.errors import SpecError
from lth_jax.lottery.aligning import Aligner, Network
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.repair import corrections, moments_of, repaired
from lth_jax.pruning.trees import PyTree
from lth_jax.training.loop import Program
from lth_jax.training.paths import Ends, path, recomputed
from lth_jax.training.states import Evaluation, Examples, in_batches
from lth_jax.training.streamed import StreamedSplit


class PathMeter:
    """Measures paths as `config.paths` says.

    Args:
      experiment: whose data and network.
      spec: how many places, on which examples, by which statistics, after which alignment.
    """

    def __init__(self, experiment: Experiment, spec: PathsSpec):
        self.experiment, self.spec = experiment, spec
        self.alphas = np.linspace(0, 1, spec.points)
        self.aligner = Aligner(experiment, spec.align, spec.examples)

    def check(self) -> None:
        """Checks that the network has what statistics are taken of, and what can be aligned.

        Raises:
          SpecError: it has not.
        """
        if self.spec.align != "none":
            self.aligner.check()
        if self.spec.statistics != "repaired":
            return
        model, x = self.experiment.model, self.experiment.example
        variables = dict(jax.eval_shape(model.init, jax.random.key(0), x))
        params = variables.pop("params")
        if not jax.eval_shape(partial(moments_of, model.apply), params, variables, x):
            raise SpecError(
                f"config.paths.statistics='repaired': {self.experiment.spec.model.name} has no "
                "hidden Dense or Conv of Flax Linen; accepted: interpolated or recomputed"
            )

    def measured(self, first: Network, second: Network) -> tuple[Evaluation, Evaluation]:
        """Returns what training and test examples say of each network between two."""
        restate, measure = None, self.experiment.program(1).measure
        if self.spec.statistics == "recomputed" and jax.tree.leaves(first[1]):
            restate = self._recomputed
        if self.spec.statistics == "repaired":
            # Moments ride along with the batch statistics: what is wanted of a network in between
            # lies in between, as these do.
            first, second = ((p, (s, self._moments(p, s))) for p, s in (first, second))
            restate, measure = self._corrected, self._measure_corrected
        ends, places = Ends(first, second), jnp.asarray(self.alphas, jnp.float32)
        return jax.device_get(path(measure, restate, ends, places, self._train, self._test))

    @cached_property
    def _train(self) -> Examples:
        """The training examples, in batches, the last one padded."""
        train = self.experiment.train
        count = self.spec.examples or len(train.targets)
        inputs, targets = (np.asarray(array[:count]) for array in train[:2])
        return in_batches(inputs, targets, self.experiment.spec.eval.batch_size)

    @cached_property
    def _test(self) -> Examples:
        """The test examples, all on the device, in batches."""
        test = self.experiment.test
        return test.whole() if isinstance(test, StreamedSplit) else test

    def _recomputed(self, params: PyTree, model_state: PyTree, train: Examples) -> PyTree:
        """Returns the batch statistics of a network on the training examples, in whole batches."""
        model, pixels = self.experiment.model, self.experiment.pixels

        def apply(variables: PyTree, stored: jax.Array, *options: Any) -> tuple[jax.Array, PyTree]:
            return model.apply(variables, pixels.prepared(stored), *options)

        available = len(self.experiment.train.targets)
        whole = min(self.spec.examples or available, available) // train.targets.shape[1]
        return recomputed(apply, params, model_state, train.inputs[:whole])

    # REPAIR, by the first batch of training examples

    @cached_property
    def _moments(self) -> Any:
        seen = self.experiment.pixels.prepared(self._train.inputs[0])
        return jax.jit(lambda p, state: moments_of(self.experiment.model.apply, p, state, seen))

    def _corrected(self, params: PyTree, model_state: PyTree, train: Examples) -> PyTree:
        state, wanted = model_state
        seen = self.experiment.pixels.prepared(train.inputs[0])
        return state, corrections(self.experiment.model.apply, params, state, wanted, seen)

    def _measure_corrected(
        self, params: PyTree, model_state: PyTree, examples: Examples
    ) -> Evaluation:
        state, by_layer = model_state
        return self._repairing.measure(params, state, examples, by_layer)

    @cached_property
    def _repairing(self) -> Program:
        """The experiment's program, of a network whose layers are corrected by its constants."""
        plain, model = self.experiment.program(1), self.experiment.model

        def apply(by_layer: PyTree, *arguments: Any) -> Any:
            return repaired(model.apply, by_layer)(*arguments)

        return Program(
            apply, plain.optimizer, batch_size=plain.batch_size, pixels=plain.pixels,
            objective=plain.objective,
        )  # fmt: skip
