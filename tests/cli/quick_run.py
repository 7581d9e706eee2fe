"""An experiment that takes no time, as arguments."""

from ..tiny import arguments

QUICK = arguments(levels=1, replicates=1, branches="reinit,random_mask")
