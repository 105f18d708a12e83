"""The device, the numerical precision and the memory of a training run."""

from __future__ import annotations

import ctypes
import logging
import mmap
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from search_spaces import ConfigurationError, TrainingConfig

log = logging.getLogger(__name__)


def setup_training_environment(config: TrainingConfig) -> tuple[torch.device, bool]:
    """Select the device, and whether to use mixed precision.

    ``auto`` selects CUDA if it is available. Mixed precision needs CUDA or a CPU with native bfloat16; otherwise the
    training uses single precision and logs a warning.

    Raises:
        ConfigurationError: The device is unknown, or it is ``cuda`` and PyTorch finds no CUDA device.

    Example::

        from tuner import TrainingConfig, setup_training_environment

        device, use_amp = setup_training_environment(TrainingConfig(device="cpu"))
        print(f"training on {device}, mixed precision: {use_amp}")
    """
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device: found {config.device!r}; use one of auto, cpu, cuda")
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigurationError(
            "device: found 'cuda'; PyTorch finds no CUDA device on this machine; use 'auto' or 'cpu'"
        )
    device = torch.device("cuda" if config.device != "cpu" and has_cuda else "cpu")
    use_amp = config.mixed_precision and _supports_half_precision(device)
    if config.mixed_precision and not use_amp:
        log.warning("mixed_precision: found true, but this CPU has no native bfloat16; training uses float32")
    return device, use_amp


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return the half-precision type of a device: bfloat16, or float16 on GPUs without native bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def peak_gpu_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB of this process's tensors on a GPU since the last call; 0 for a CPU."""
    if device.type != "cuda":
        return 0.0
    peak_bytes = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak_bytes / 2**20


def _supports_half_precision(device: torch.device) -> bool:
    if device.type == "cuda":
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


# Only PyTorch's GPU allocator has its own exception type; other errors are recognised by their message.
_MESSAGES = (
    "DefaultCPUAllocator",
    "could not create a primitive",  # oneDNN
    "could not create a memory",
    "std::bad_alloc",
    "CUDA error: out of memory",  # from CUDA itself, for example for the context of an additional process
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER_TRIM = 2**31 - 1
_MMAP_MAX, _TRIM_THRESHOLD = 1 << 16, 128 << 10  # the defaults
_IS_GLIBC = platform.libc_ver()[0] == "glibc"

# Address space that is reserved until memory runs out. Freed memory is fragmented by then: it suffices for tensors, but
# not for the kernels that oneDNN maps for a new batch size.
_RESERVE_BYTES = 64 << 20
_reserve: list[mmap.mmap] = []


class MemoryExhaustedError(RuntimeError):
    """There was not enough memory for a micro-batch.

    Attributes:
        micro_batch_size: The maximum number of images in a micro-batch when memory ran out.
    """

    def __init__(self, micro_batch_size: int, reason: str) -> None:
        images = f"{micro_batch_size} image{'' if micro_batch_size == 1 else 's'}"
        super().__init__(f"not enough memory for a micro-batch of {images}: {reason.splitlines()[0]}")
        self.micro_batch_size = micro_batch_size


@contextmanager
def out_of_memory_as_exhausted(micro_batch_size: int) -> Iterator[None]:
    """Convert out-of-memory errors in a ``with`` block into an error with the micro-batch size.

    Raises:
        MemoryExhaustedError: PyTorch or Python ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryExhaustedError(micro_batch_size, str(error) or type(error).__name__) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that GPU or CPU memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryExhaustedError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def keep_freed_memory() -> None:
    """Make the C library reuse freed memory instead of returning it to the kernel.

    Every step allocates the same tensors. By default glibc maps each large tensor anew and the kernel clears its
    memory page by page, which takes 10 to 20 % of a step. The peak memory use stays the same.
    """
    _set_malloc(mmap_max=0, trim_threshold=_NEVER_TRIM)
    if not _reserve:
        with suppress(OSError):  # the training itself reports a lack of memory
            _reserve.append(mmap.mmap(-1, _RESERVE_BYTES))


def release_freed_memory() -> None:
    """Return freed memory and the reserve to the operating system or the GPU, and stop keeping freed memory.

    Otherwise freed memory would fill the address space of the reserve, and oneDNN would fail again.
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
