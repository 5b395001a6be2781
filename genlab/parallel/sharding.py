"""Weights, gradients and moments divided among processes, for networks that outgrow one device: PyTorch's FSDP2.

Each process keeps a share of every parameter of a sharded module, of its gradient, of the optimiser's moments and of
the average, and has a module's whole parameters for the time of its forward and its backward pass. Checkpoints hold
whole tensors, so that a run can be resumed with any number of processes, sharded or not.

PyTorch's part of it takes half a second to import, and is imported only when used.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genlab.errors import ConfigurationError
from genlab.models.base import Model
from genlab.parallel.collectives import num_processes

_OURS = __name__.partition(".")[0]


def require_shardable(model: Model) -> None:
    """Refuse a model that cannot be sharded, and a single process.

    Raises:
        ConfigurationError: There is a single process, or the model uses weights outside of their modules.
    """
    if num_processes() == 1:
        raise ConfigurationError(
            "trainer.sharding must be none in one process (add trainer.sharding=none); for several set "
            "trainer.devices, or use torchrun"
        )
    covered = {id(parameter) for module in model.shardable() for parameter in module.parameters()}
    if any(id(parameter) not in covered for parameter in model.parameters()):
        raise ConfigurationError(
            f"trainer.sharding must be none for {type(model).__name__} as it is configured, which uses weights outside "
            "of the modules that own them, or their second derivatives"
        )


def shard(model: Model, device: torch.device) -> None:
    """Replace every parameter by the share of this process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if type(model).__module__.partition(".")[0] == _OURS:
        # It warns of code that changes a module's output in place, since the gradient would be wrong. No loss of genlab
        # does, as tests of sharded training show; the warning is kept for a user's own model.
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (num_processes(),))
    for module in model.shardable():
        for parameter in module.parameters():
            if not is_share(parameter):
                parameter.data = parameter.data.contiguous()  # FSDP2 takes no other layout
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def whole(state: Any) -> Any:
    """Return a nested state with whole tensors for shares, on the CPU; all ranks must call it."""
    if is_share(state):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value) for value in state)
    return state


def share_like(value: Tensor, reference: Tensor) -> Tensor:
    """Return this process's share of a whole tensor if the reference is a share, else the tensor itself."""
    if not is_share(reference) or is_share(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    # No source rank: each process has the whole tensor and cuts its own share out of it.
    return distribute_tensor(value, reference.device_mesh, reference.placements, src_data_rank=None)


def shares_like(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return a module's whole state cut into the shares of this process."""
    own = module.state_dict()
    return {name: share_like(value, own[name]) if name in own else value for name, value in state.items()}


def is_share(tensor: object) -> bool:
    """Return True if a value is a process's share of a tensor: a DTensor, recognised without importing its module."""
    return hasattr(tensor, "full_tensor")


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients as one vector, over all ranks if they are shares."""
    if len({(gradient.dtype, is_share(gradient)) for gradient in gradients}) == 1 and not is_share(gradients[0]):
        # The sum of torch's function, which spends longer on sorting tensors by device and type than on small ones.
        total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return total
    norm: Any = torch.nn.utils.get_total_norm(gradients, foreach=True)
    whole_norm: Tensor = norm.full_tensor() if is_share(norm) else norm
    return whole_norm
