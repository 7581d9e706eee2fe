"""What a run directory holds: gathered as plain data, selected from, and shown.

Nothing here imports JAX or Orbax, so that the answer is there at once.
"""
