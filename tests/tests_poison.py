"""A sample over which the decoder aborts, for those who must survive it."""

POISON = b"POISON"
"""At the end of a file's bytes."""
DEADLY_PILLOW = f"""
import os, PIL.Image
opened = PIL.Image.open
def open_(file, *more, **named):
    if hasattr(file, "getvalue") and {POISON!r} in file.getvalue():
        os.abort()
    return opened(file, *more, **named)
PIL.Image.open = open_
"""
"""A sitecustomize.py: a decoder with a bug, in every process that has its folder on the path."""
