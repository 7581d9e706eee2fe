"""What the system gives a process: signals that end it, streams that may be closed, its cores.

This lies below everything else: whoever writes a file must know what to undo at a signal.
"""
