"""Features of Inception-v3 from a weights file, as used by published FID, KID and Inception scores.

The network is TensorFlow's of December 2015, whose weights circulate converted for PyTorch as
``pt_inception-2015-12-05-6726825d.pth`` (pytorch-fid) and ``weights-inception-2015-12-05-6726825d.pth``
(torch-fidelity). torchvision's network has the same layers and names; it pools otherwise in the last branch of nine of
its blocks, which is set right here.

Dimensions: B batch, C channels, H height, W width, F = 2,048 features, K = 1,008 classes.
"""

import hashlib
import io
import pickle
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.data.download import DownloadError, exclusive_download, fetch
from genlab.errors import CheckpointError
from genlab.metrics.features import Description
from genlab.metrics.quality_settings import DOWNLOADED
from genlab.paths import user_cache

SIDE = 299
NUM_CLASSES = 1008
_BLOCKS_OF_AVERAGES = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")
_BLOCK_OF_MAXIMA = "Mixed_7c"
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NUM_BYTES = 95_628_359
_HINT = f"take {URL}"


def weights_file(named: str) -> Path:
    """Return the named file of weights, or that of the cache, which is downloaded once, for DOWNLOADED.

    Raises:
        CheckpointError: The file is not in the cache and cannot be downloaded.
        StorageError: The disk is full or the cache cannot be written.
    """
    if named != DOWNLOADED:
        return Path(named)
    path = user_cache() / "inception" / URL.rsplit("/", 1)[1]
    try:
        if not path.is_file():
            with exclusive_download(path.parent, path.name):
                if not path.is_file():
                    fetch(URL, path, digest=SHA256, algorithm="sha256")
    except DownloadError as error:
        raise CheckpointError(
            f"Inception's weights ({NUM_BYTES / 1e6:.0f} MB) cannot be downloaded from {URL}: {error}; put that file "
            f"at {path}, or name one with inception_weights=FILE (in training quality.inception_weights=FILE)"
        ) from error
    return path


class InceptionFeatures:
    """Inception-v3 as an extractor of features and of logits without bias, as in published scores.

    Args:
        weights: A file of one of the two names above.
        device: Device of the network.

    Raises:
        CheckpointError: The file is missing, damaged, refused, or of another network.
    """

    name = "inception"

    def __init__(self, weights: Path, *, device: torch.device) -> None:
        try:
            content = weights.read_bytes()
        except OSError as error:
            raise CheckpointError(f"inception_weights {weights} cannot be read ({error.strerror}); {_HINT}") from error
        self.identity = f"{self.name} {hashlib.sha256(content).hexdigest()[:8]}"
        self.network = _network(content, weights).to(device).eval().requires_grad_(False)
        self._class_weights = self.network.get_submodule("fc").get_parameter("weight")
        self.network.fc = nn.Identity()

    def describe(self, images: Float[Tensor, "B C H W"]) -> Description:
        """Return features and logits of images in [0, 1]; grey ones are repeated over three channels."""
        levels = 255 * images.expand(-1, 3, -1, -1)
        features: Tensor = self.network((resize_as_tensorflow(levels) - 128) / 128)
        return Description(features, features @ self._class_weights.t())


def resize_as_tensorflow(images: Float[Tensor, "B C H W"], *, side: int = SIDE) -> Float[Tensor, "B C S S"]:
    """Resize bilinearly without torch's half-pixel offset: pixel i of the result is at i * H / S of the image."""
    return _interpolation(images.shape[2], side, images) @ images @ _interpolation(images.shape[3], side, images).t()


def _interpolation(size: int, side: int, like: Tensor) -> Float[Tensor, "S H"]:
    places = torch.arange(side, dtype=torch.float64) * size / side
    lower = places.long()
    upper = (lower + 1).clamp_max(size - 1)
    share = (places - lower).unsqueeze(1)
    identity = torch.eye(size, dtype=torch.float64)
    return ((1 - share) * identity[lower] + share * identity[upper]).to(like)


def _network(content: bytes, path: Path) -> nn.Module:
    from torchvision.models import inception_v3  # more than a second to import

    # Random initial values are a minute's work that the file overwrites.
    network: nn.Module = inception_v3(
        weights=None, num_classes=NUM_CLASSES, aux_logits=False, transform_input=False, init_weights=False
    )
    # The messages of torch are many lines, and advise to run what an untrusted file says.
    reason = "it is truncated, or not a file of weights"
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        reason = "it is of another network"
        network.load_state_dict(weights)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"inception_weights {path} does not hold Inception-v3 of 2015: {reason}; {_HINT}"
        ) from error
    for name in _BLOCKS_OF_AVERAGES:
        average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        setattr(network, name, _Repooled(network.get_submodule(name), average))
    maximum = nn.MaxPool2d(3, stride=1, padding=1)
    setattr(network, _BLOCK_OF_MAXIMA, _Repooled(network.get_submodule(_BLOCK_OF_MAXIMA), maximum))
    return network


class _Repooled(nn.Module):
    """A block of torchvision with another pooling in its last branch."""

    def __init__(self, block: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        branches = self.block._forward(maps)  # type: ignore[operator]
        pooled = self.block.get_submodule("branch_pool")(self.pool(maps))
        return torch.cat([*branches[:-1], pooled], 1)
