"""`genlab doctor`: reports the devices and libraries of this machine and checks its arithmetic."""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from genlab.config.fields import reader_of
from genlab.data.location import describe_root, existing_root, resolve_root
from genlab.errors import GenlabError
from genlab.functional import kl_to_standard_normal
from genlab.launch.contract import JobContext
from genlab.run.environment import describe_cpu, describe_device, git_state, versions
from genlab.training.precision import has_bfloat16

_GIGABYTE = 1e9
_DATA = (
    *("BinarizedMNIST", "EMNIST", "FashionMNIST", "KMNIST", "MNIST"),
    *("cifar-10-batches-py", "train_32x32.mat"),  # the second is SVHN's
)
"""Where downloads lie; by default caches of other kinds are beside them."""


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """The keys of configs/doctor.yaml."""

    root: str | None
    """Folder of the data, as dataset.root; null is the default of a training run."""


class UnsoundNumericsError(GenlabError, RuntimeError):
    """This machine computes something wrong."""

    exit_code = 5


read = reader_of(DoctorSettings)


def run(settings: DoctorSettings, context: JobContext) -> None:
    """Print the findings.

    Raises:
        UnsoundNumericsError: A check of the numerics failed.
    """
    del context
    sections = {
        "versions": _versions(),
        "devices": _devices(),
        "data": _data(settings.root),
        "disk": _disk(settings.root),
    }
    for title, lines in sections.items():
        print(title)
        try:
            for line in lines:
                print(f"  {line}")
        except GenlabError as error:
            print(f"  {error}")
    failed = []
    print("numerics")
    for name, holds in NUMERICS.items():
        is_sound = holds()
        print(f"  {'ok  ' if is_sound else 'FAIL'} {name}")
        if not is_sound:
            failed.append(name)
    if failed:
        raise UnsoundNumericsError(f"this machine fails: {', '.join(failed)}; reinstall torch, or use another device")


def _versions() -> Iterator[str]:
    yield ", ".join(f"{name} {number}" for name, number in versions().items())
    state = git_state()
    if state is not None:
        yield f"clone at {state['commit'][:12]}{' with changes' if state['is_dirty'] else ''}"


def _devices() -> Iterator[str]:
    bfloat16 = "with" if has_bfloat16(torch.device("cpu")) else "without"
    yield f"cpu: {describe_cpu()}, {os.cpu_count()} cores, {bfloat16} bfloat16 instructions"
    yield f"threads: {torch.get_num_threads()} (num_threads= or OMP_NUM_THREADS changes it)"
    num_devices = torch.cuda.device_count()
    if num_devices > 0 and not torch.cuda.is_available():
        build = f"torch (CUDA {torch.version.cuda})"
        yield f"{num_devices} CUDA devices, which this {build} cannot use: is the driver too old?"
        num_devices = 0
    for index in range(num_devices):
        device = torch.device("cuda", index)
        memory = torch.cuda.get_device_properties(device).total_memory / _GIGABYTE
        yield f"{describe_device(device)}, {memory:.0f} GB, bfloat16 {has_bfloat16(device)}"
    if torch.backends.mps.is_available():
        yield "mps"
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield "no accelerator: device=auto takes the cpu"


def _data(root: str | None) -> Iterator[str]:
    yield f"looked for in {describe_root(root)}"
    places = [existing_root(root) / name for name in _DATA]
    # A download that failed leaves an empty folder.
    found = [path.name for path in places if path.is_file() or any(inner.is_file() for inner in path.rglob("*"))]
    yield f"found: {', '.join(found)}" if found else "nothing found; dataset=digits is embedded"


def _disk(root: str | None) -> Iterator[str]:
    for name, folder in (("here", Path.cwd()), ("data", resolve_root(root))):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(existing).free / _GIGABYTE
        writable = "writable" if os.access(existing, os.W_OK) else "not writable"
        yield f"{name}: {free:.1f} GB free, {writable} ({existing})"


def _kl_is_zero_at_the_prior() -> bool:
    zeros = torch.zeros(2, 3)
    return bool((kl_to_standard_normal(zeros, zeros) == 0).all())


def _matmul_is_exact() -> bool:
    # Whole numbers below 2^24 are exact in float32: the sum of k^2 for k < 100 is 328,350.
    numbers = torch.arange(100.0)
    return float((numbers[None] @ numbers[:, None]).item()) == 328350.0


def _logsigmoid_is_stable() -> bool:
    value = torch.nn.functional.logsigmoid(torch.tensor([-1000.0, 0.0]))
    return value[0].item() == -1000.0 and math.isclose(value[1].item(), -math.log(2), rel_tol=1e-6)


def _bfloat16_rounds() -> bool:
    # 8 significant bits: 1 + 2^-9 rounds to 1.
    one = torch.ones(1, 1, dtype=torch.bfloat16)
    return float((one @ one).item()) == 1.0 and float(torch.tensor(1 + 2**-9, dtype=torch.bfloat16).item()) == 1.0


def _same_seed_same_numbers() -> bool:
    first, second = (torch.randn(8, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    return bool(torch.equal(first, second))


NUMERICS: dict[str, Callable[[], bool]] = {
    "KL(N(0, 1) || N(0, 1)) = 0": _kl_is_zero_at_the_prior,
    "a product of whole numbers is exact": _matmul_is_exact,
    "log sigmoid(-1000) = -1000": _logsigmoid_is_stable,
    "bfloat16 products round as they should": _bfloat16_rounds,
    "the same seed draws the same numbers": _same_seed_same_numbers,
}
