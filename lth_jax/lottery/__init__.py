"""The algorithm: train, prune, rewind, repeat, with the branches that control each level."""
