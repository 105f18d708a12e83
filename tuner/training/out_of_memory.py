"""Memory: what is freed is kept for the next step, and what to do when there is none left."""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

# PyTorch has a type of its own only for what its GPU allocator does not get. All others say so in words.
_WORDS = (
    "DefaultCPUAllocator",
    "could not create a primitive",  # oneDNN
    "could not create a memory",
    "std::bad_alloc",
    "CUDA error: out of memory",  # of CUDA itself, for example for the context of one process more
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER_TRIM = 2**31 - 1
_MMAP_MAX, _TRIM_THRESHOLD = 1 << 16, 128 << 10  # as it begins with
_IS_GLIBC = platform.libc_ver()[0] == "glibc"

# Address space that nothing uses until memory runs out: what was freed lies in pieces then, which serve tensors, but
# not oneDNN, which maps memory for the kernels of another batch size.
_RESERVE_BYTES = 64 << 20
_reserve: list[mmap.mmap] = []


class MemoryExhaustedError(RuntimeError):
    """There was no memory for a pass.

    Attributes:
        images: The most images that the pass had at once.
    """

    def __init__(self, images: int, reason: str) -> None:
        """Take the most images that the pass had at once, and what PyTorch said."""
        super().__init__(f"no memory for {images} image{'' if images == 1 else 's'} at once: {reason.splitlines()[0]}")
        self.images = images


@contextmanager
def passes_of(images: int) -> Iterator[None]:
    """Turn PyTorch's errors for want of memory into one that says how many images at once were too many.

    Raises:
        MemoryExhaustedError: Instead of them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryExhaustedError(images, str(error) or type(error).__name__) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryExhaustedError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def keep_freed_memory() -> None:
    """Let the C library use freed memory again instead of giving it back to the kernel and asking for it anew.

    Every step allocates the same tensors; by default glibc maps each larger one, and the kernel clears it page by page:
    a tenth to a fifth of a step. The most that is ever in use at a time stays the same.
    """
    _tell_malloc(mmap_max=0, trim_threshold=_NEVER_TRIM)
    if not _reserve:
        with suppress(OSError):  # where there is not even so much, training says so
            _reserve.append(mmap.mmap(-1, _RESERVE_BYTES))


def release_freed_memory() -> None:
    """Give what was freed back to the kernel or the GPU, for what is not allocated like tensors, and keep no more.

    Pieces of memory that are kept would grow into the reserve, and oneDNN find no room after the next failure either.
    """
    _tell_malloc(mmap_max=_MMAP_MAX, trim_threshold=_TRIM_THRESHOLD)
    while _reserve:
        _reserve.pop().close()
    if _IS_GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _tell_malloc(*, mmap_max: int, trim_threshold: int) -> None:
    if _IS_GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, mmap_max)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
