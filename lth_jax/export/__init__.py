"""Tickets in files of their own, for other programs: plain, for PyTorch, and compact.

Nothing here executes what it reads: safetensors and NumPy's archives without pickles.
"""
