"""The garbage collector while a role is imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Pause the collector for imports, and exempt all objects there are from later collections.

    Modules stay, with all that they define. Full collections of these objects would cost a tenth
    of the start, and would later stop a running node for 40 ms each.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
