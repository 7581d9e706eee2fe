"""Two experiments at once, from Python: each in a thread, with a run directory of its own.

pip install .
python examples/run_in_threads.py
"""

from concurrent.futures import ThreadPoolExecutor

import lth_jax


def experiment(learning_rate):
    """A short experiment on scikit-learn's digits."""
    config = lth_jax.get_config("lenet_digits")
    config.levels, config.replicates, config.branches = 2, 2, ()
    config.train.steps, config.train.learning_rate = "100", learning_rate
    return lth_jax.run(config, workdir=f"runs/rate-{learning_rate:g}")


def main(rates=(0.001, 0.004)):
    """Trains them, or goes on with them; gives their results."""
    with ThreadPoolExecutor(len(rates)) as pool:
        found = list(pool.map(experiment, rates))
    for results in found:
        print(results)
    return found


if __name__ == "__main__":
    main()
