"""Self-attention over the positions of a map (Zhang et al. 2018, arXiv:1805.08318, section 3).

Differs from the paper: the values have C/2 channels, as in the authors' program, instead of C/8. That program also
pools keys and values, and its 1x1 convolutions have no biases.

Dimensions: B batch, C channels, H height, W width, P positions (H * W), K channels of queries and keys.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Layer that adds to each position a weighted sum of the values of all positions, at first with weight zero.

    Args:
        channels: C, at least 2.
    """

    has_free_scale = True  # techniques that bound each layer's slope do not bound gamma

    def __init__(self, channels: int) -> None:
        super().__init__()
        num_keys, num_values = max(channels // 8, 1), channels // 2
        self.query = nn.Conv2d(channels, num_keys, 1)  # g
        self.key = nn.Conv2d(channels, num_keys, 1)  # f
        self.value = nn.Conv2d(channels, num_values, 1)  # h
        self.output = nn.Conv2d(num_values, channels, 1)  # v
        self.residual_weight = nn.Parameter(torch.zeros(()))  # gamma

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        # (B, K, P), (B, K, P), (B, C/2, P)
        # Written out, because the fused kernels have no second derivative, which gradient penalties need.
        weights = (query.transpose(1, 2) @ key).softmax(2)  # (B, P, P), eq. 1: a row for each query
        attended = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])  # (B, C/2, H, W), eq. 2
        y: Tensor = x + self.residual_weight * self.output(attended)  # eq. 3
        return y
