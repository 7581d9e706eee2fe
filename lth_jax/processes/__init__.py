"""Several processes of one experiment: how they find one another, and what they say to each other.

Nothing here knows what they work on.
"""
