"""Running out of memory, said in one line: what to change, and what is kept."""

from collections.abc import Iterator
from contextlib import contextmanager

SIGNS = ("out of memory", "can't allocate memory", "not enough memory")  # torch's, CUDA and CPU


@contextmanager
def out_of_memory_explained(memory_gb: float | None, kept: str) -> Iterator[None]:
    """Turn whatever torch raises when memory does not suffice into one error of one line.

    Args:
        memory_gb: what the site's file allows; None if it says nothing.
        kept: what is not lost, in words.

    Raises:
        MemoryError: instead of what was raised inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in SIGNS):
            raise
        now = "not set" if memory_gb is None else f"{memory_gb:g}"
        raise MemoryError(
            f"out of memory: lower memory_gb in the site's file (now {now}) and start a new run, "
            "which is then planned smaller, or ask the coordinator for a smaller "
            f"planning.memory_gb or planning.max_batch_size; {kept}"
        ) from None
