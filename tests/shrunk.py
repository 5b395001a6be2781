"""Presets with small networks, for tests of all of them."""

from typing import Any

# Every other number of a preset is its own.
SMALL: dict[str, Any] = {
    **{"channels": 12, "stream_channels": 8, "block_channels": 8, "filters": 4, "width": 4, "num_features": 8},
    **{"num_layers": 2, "num_blocks": 2, "num_glimpses": 2, "num_units": 8, "num_hidden": 5, "latent_size": 3},
    **{
        "num_kernels": 3,
        "read_size": 4,
        "num_reference": 6,
        "hidden": [8, 8],
        "head_channels": [8],
        "blocks_down": [1],
    },
}


def shrunk(node: Any) -> Any:
    """Return the node of a preset with few layers, channels and units."""
    if isinstance(node, dict):
        return {name: SMALL[name] if name in SMALL and value else shrunk(value) for name, value in node.items()}
    return node
