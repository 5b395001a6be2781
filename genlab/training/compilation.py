"""Compilation of a model's networks."""

import torch

from genlab.models.base import Model


def compile_networks(model: Model, *, mode: str = "default") -> None:
    """Compile in place, at their first call, the networks that ``model.compilable()`` names.

    Args:
        model: Trained in phases, each of which freezes the parameters of the others.
        mode: Of :func:`torch.compile`.
    """
    _guard_frozen_parameters()
    for module in model.compilable():
        module.compile(mode=mode)


def _guard_frozen_parameters() -> None:
    # PyTorch 2.11 takes a parameter to be unchanged while its module has the same attributes. A network that was
    # compiled while its parameters were frozen would then pass no gradient on (pytorch/pytorch#177158).
    if torch.__version__ < torch.torch_version.TorchVersion("2.12"):
        import torch._dynamo.config as dynamo

        dynamo.skip_tensor_guards_with_matching_dict_tags = False
        dynamo.use_recursive_dict_tags_for_guards = False
