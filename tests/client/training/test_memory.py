"""Too little memory is said in one line; other errors stay what they are."""

import pytest
import torch

from client.training.memory import out_of_memory_explained

KEPT = "the steps so far are kept"


def explained(error: Exception, memory_gb: float | None = 8.0) -> str:
    with pytest.raises(MemoryError) as caught, out_of_memory_explained(memory_gb, KEPT):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_one_line_says_what_to_change(error: Exception) -> None:
    line = explained(error)
    assert line.startswith("out of memory: lower memory_gb in the site's file (now 8)")
    assert "planning.max_batch_size" in line
    assert line.endswith(KEPT)
    assert "\n" not in line


def test_a_site_without_a_limit_is_told_so() -> None:
    assert "(now not set)" in explained(MemoryError(), None)


def test_a_real_allocation_that_fails_is_one() -> None:
    with pytest.raises(MemoryError, match="out of memory"), out_of_memory_explained(None, KEPT):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$"), out_of_memory_explained(8.0, KEPT):
        raise RuntimeError("shapes")
