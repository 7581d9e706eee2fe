"""Sweeps: many experiments from one command, each with an identity and a directory of its own.

A sweep plans; what places, retries and queues is an engine: processes of this machine, Slurm or
Ray. A worker knows nothing but its command line, and its run directory is all that is ever asked.
"""
