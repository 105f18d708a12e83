"""Memory: keeping freed memory for the next step, and recognising out-of-memory errors."""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

# Only PyTorch's GPU allocator has an exception type of its own; the other errors are known by their message.
_MESSAGES = (
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
_MMAP_MAX, _TRIM_THRESHOLD = 1 << 16, 128 << 10  # the defaults
_IS_GLIBC = platform.libc_ver()[0] == "glibc"

# Address space that is unused until memory runs out. Freed memory is fragmented then: enough for tensors, but not for
# oneDNN, which maps memory for the kernels of another batch size.
_RESERVE_BYTES = 64 << 20
_reserve: list[mmap.mmap] = []


class MemoryExhaustedError(RuntimeError):
    """There was no memory for a micro-batch.

    Attributes:
        micro_batch_size: Its largest possible number of images.
    """

    def __init__(self, micro_batch_size: int, reason: str) -> None:
        images = f"{micro_batch_size} image{'' if micro_batch_size == 1 else 's'}"
        super().__init__(f"no memory for a micro-batch of {images}: {reason.splitlines()[0]}")
        self.micro_batch_size = micro_batch_size


@contextmanager
def out_of_memory_as_exhausted(micro_batch_size: int) -> Iterator[None]:
    """Convert the out-of-memory errors of PyTorch into one that names the micro-batch size.

    Raises:
        MemoryExhaustedError: Instead of them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryExhaustedError(micro_batch_size, str(error) or type(error).__name__) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an out-of-memory error, of a GPU or of the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryExhaustedError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory instead of returning it to the kernel.

    Every step allocates the same tensors; by default glibc maps each larger one, and the kernel clears it page by page:
    a tenth to a fifth of a step. The most that is ever in use at a time stays the same.
    """
    _set_malloc(mmap_max=0, trim_threshold=_NEVER_TRIM)
    if not _reserve:
        with suppress(OSError):  # without it, training reports the lack of memory
            _reserve.append(mmap.mmap(-1, _RESERVE_BYTES))


def release_freed_memory() -> None:
    """Return freed memory, and the reserve, to the kernel or the GPU, and keep none from now on.

    Otherwise kept memory would grow into the reserve, and oneDNN would find no room after the next failure either.
    """
    _set_malloc(mmap_max=_MMAP_MAX, trim_threshold=_TRIM_THRESHOLD)
    while _reserve:
        _reserve.pop().close()
    if _IS_GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _set_malloc(*, mmap_max: int, trim_threshold: int) -> None:
    if _IS_GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, mmap_max)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
