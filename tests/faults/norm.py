"""A config: the quick experiment with a network that has batch statistics."""

import flax.linen as nn

from configs.lenet_digits import get_config as get_digits


class NormNet(nn.Module):
    """One hidden layer with batch normalization."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        """Returns logits [batch, classes]."""
        x = nn.Dense(8, name="fc1")(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dense(self.classes, name="output")(nn.relu(x))


MODELS = {"norm": NormNet}


def get_config():
    """Returns the config."""
    config = get_digits()
    config.model.name = "norm"
    return config
