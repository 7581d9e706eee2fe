"""Files that are replaced whole or not at all, for every package that writes any.

This lies below the store, since caches of data and of native code are written as safely as results.
"""
