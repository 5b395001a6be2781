"""PyTorch layers that couple the images of a batch or draw noise, synchronised over processes.

A layer keeps the names of its state, and behaves differently only in training steps of several processes (see
:mod:`genlab.parallel.collectives`). PyTorch's own SyncBatchNorm does not support the CPU, nor dropout.

Dimensions: B batch, C channels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from genlab.functional import at_least_float32
from genlab.parallel.collectives import draw_rows, gather_rows, is_one_batch, num_processes


def synchronize_layers(model: nn.Module) -> None:
    """Make every batch normalisation and dropout of a model treat the rows of all processes as one batch."""
    for module in model.modules():
        kind = type(module)
        if isinstance(module, _BatchNorm):
            module.__class__ = type(kind.__name__, (_SynchronizedBatchNorm, kind), {})
        elif isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            module.__class__ = type(kind.__name__, (_SynchronizedDropout, kind), {})


class _SynchronizedBatchNorm(_BatchNorm):
    """Batch normalisation with mean and variance over the rows of all processes, which have equally many."""

    def forward(self, x: Float[Tensor, "B C ..."]) -> Float[Tensor, "B C ..."]:
        if not (self.training and is_one_batch()):
            return super().forward(x)
        wide = at_least_float32(x)
        dims = [dim for dim in range(x.dim()) if dim != 1]
        own_variance, own_mean = torch.var_mean(wide, dims, correction=0)
        means, variances = gather_rows(torch.stack((own_mean, own_variance))[None]).unbind(1)  # (W, C) each
        mean = means.mean(0)
        # Variance within and between the processes: a difference of squares would lose digits.
        variance = (variances + (means - mean).square()).mean(0)
        self._track(mean, variance, num=num_processes() * x.numel() // x.shape[1])
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        y = (wide - mean.view(shape)) * scale.view(shape)
        if self.affine:
            y = y + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, " C"], variance: Float[Tensor, " C"], *, num: int) -> None:
        """Move the running statistics, as PyTorch does; that of the variance is unbiased."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * num / max(num - 1, 1)).to(self.running_var.dtype), share)


class _SynchronizedDropout(_DropoutNd):
    """Dropout with the mask that a single process with the whole batch would draw."""

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        if not (self.training and is_one_batch()):
            y: Tensor = super().forward(x)
            return y
        forward: Callable[[Tensor], Tensor] = super().forward
        layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format

        def draw(rows: int) -> Tensor:
            # The scaled mask as PyTorch draws it: dropout of ones in the layout of x.
            ones = torch.empty((rows, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=layout).fill_(1)
            return forward(ones)

        return x * draw_rows(draw, len(x))


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
