"""The type of the matrix products of training: reduced if the hardware supports it.

A CPU without instructions for a reduced type converts every operand and every result.
"""

import logging
import os
from typing import Literal

import torch

from genlab.parallel.processes import gathered

_log = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_CPU_INSTRUCTIONS = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}
"""Of each reduced type, by the names of :func:`torch.cpu.get_capabilities`."""


def has_bfloat16(device: torch.device) -> bool:
    """Return True if a device computes with bfloat16: a CUDA device or a CPU with instructions for it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _has_instructions("bfloat16")


def resolved(precision: Precision, device: torch.device) -> Precision:
    """Return the type of a setting on a device."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def precision_of_all_ranks(precision: Precision, device: torch.device) -> Precision:
    """Return the type of a setting on the devices of all ranks, and warn if it is slow there.

    The run folder keeps the type and not ``auto``, so that a run resumes in the same type on any machine.
    """
    found: list[Precision] = gathered(resolved(precision, device))
    if precision != "auto" and (warning := slowness(precision, device)) is not None:
        _log.warning(warning)
    return found[0] if len(set(found)) == 1 else "float32"


def threads_for(precision: Precision, device: torch.device) -> int | None:
    """Return the number of threads of ``num_threads=auto``; None for torch's default.

    With the recipes that set ``auto``, one thread was faster than two in bfloat16, whose operations are shorter, and
    slower in float32. More than two were not measured. The user's own OMP_NUM_THREADS is kept.
    """
    is_measured = device.type == "cpu" and precision == "bfloat16" and torch.get_num_threads() <= 2
    return 1 if is_measured and "OMP_NUM_THREADS" not in os.environ else None


def slowness(precision: Precision, device: torch.device) -> str | None:
    """Return the warning that a reduced precision is slow on a device; None if it is not."""
    if device.type != "cpu" or precision not in _CPU_INSTRUCTIONS or _has_instructions(precision):
        return None
    return (
        f"trainer.precision={precision} on a CPU without instructions for it makes a step 5 to 14 times as slow as "
        "float32; trainer.precision=auto chooses by the hardware"
    )


def _has_instructions(precision: str) -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_INSTRUCTIONS[precision])
