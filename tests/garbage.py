"""What is freed only by a collection of garbage, which stops all clients."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cyclic_garbage() -> Iterator[set[type]]:
    """
    Make no collection during the block.

    :return: takes, at the end of the block, our types of which it has left something in cycles.
    """
    found: set[type] = set()
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        types = {type(item) for item in gc.garbage}
        found |= {one for one in types if one.__module__.startswith("twisted_net.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        if was_enabled:
            gc.enable()
