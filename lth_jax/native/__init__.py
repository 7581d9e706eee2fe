"""Native code for CPUs: dense convolutions, and layers whose mask saves time.

C++ behind `jax.ffi` (`source/`), built on first use (`build`). Nothing here is needed: without a
compiler, and on other devices, XLA computes the same to rounding.
"""
