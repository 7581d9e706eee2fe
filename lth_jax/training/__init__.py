"""Training: the compiled loop, its states, optimizers, random keys and what is done to pixels."""
