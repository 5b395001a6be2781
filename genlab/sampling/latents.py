"""The latent of a given image: gradient descent on the noise of a generator (Creswell & Bharath, arXiv:1611.05644).

Differs from the paper:
- the descent starts from the nearest of many random draws, and several of these for each image;
- Adam with a rate that falls to zero (cosine), on the mean squared error of the pixels;
- the noise stays where draws lie, also for normal noise.

A latent that is found is a local minimum: its error is an upper bound on the least error of any latent.

Dimensions: N images, C channels, H height, W width, I inputs of the generator, S starts, Z noise, D draws.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from tqdm import tqdm

from genlab.models.base import GenerativeModel, evaluation_mode
from genlab.models.capabilities import RendersInputs
from genlab.models.ranges import require_count
from genlab.parallel.collectives import share_rows

NUM_STEPS = 300
NUM_DRAWS = 256
"""Number of random images, the nearest of which are the starts of the descent."""
_NUM_STARTS = 4
_LEARNING_RATE = 0.1
"""Of Adam, whose first steps have this length in each dimension of the noise: a tenth of a standard deviation."""
_IMAGES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class FoundLatents:
    """The result of a search. Errors are root mean squared differences of sub-pixels in [0, 1]."""

    inputs: Float[Tensor, "N I"]
    """Inputs of the generator: the noise, and what conditioning adds to it."""
    images: Float[Tensor, "N C H W"]
    """The images of these inputs."""
    errors: Float[Tensor, " N"]
    draw_errors: Float[Tensor, " N"]
    """Errors of the nearest of the random draws, before the descent."""
    num_steps: int


def find_latents(
    model: RendersInputs,
    images: Float[Tensor, "N C H W"],
    *,
    num_steps: int,
    label: int | None = None,
    generator: Generator | None = None,
    progress: bool = False,
) -> FoundLatents:
    """Search for the inputs of a generator whose images are nearest to given images. Processes share the images.

    Args:
        model: A model whose weights do not change meanwhile, in any mode.
        images: In [0, 1].
        num_steps: Steps of gradient descent, at least 1.
        label: Class of all images, where the model has classes; None leaves the class to the search: that of the
            nearest draws.
        generator: Source of the draws.
        progress: Show a bar with the time left.

    Raises:
        ValueError: An argument is out of range, or a class was given to a model without classes.
    """
    require_count("latent_steps", num_steps)
    assert isinstance(model, GenerativeModel)
    labels = None if label is None else torch.full((NUM_DRAWS,), label, device=images.device)
    with evaluation_mode(model), torch.no_grad():
        draws = model.draw_inputs(NUM_DRAWS, labels=labels, generator=generator)
        device = "cpu" if images.device.type == "mps" else images.device  # which has no float64
        given, rendered = (each.flatten(1).to(device, torch.float64) for each in (images, model.render(draws)))
        nearest = torch.cdist(given, rendered).topk(_NUM_STARTS, largest=False)  # of distances (N, D)
        indices = nearest.indices.to(images.device)
        draw_errors = nearest.values[:, 0] / math.sqrt(images[0].numel())

        def search(rows: slice) -> Tensor:
            targets, starts = images[rows], draws[indices[rows]]  # (N, S, I)
            parts = zip(torch.split(targets, _IMAGES_AT_ONCE), torch.split(starts, _IMAGES_AT_ONCE), strict=True)
            return torch.cat([_descend(model, *part, num_steps=num_steps, progress=progress) for part in parts])

        inputs = share_rows(search, len(images))
        found = torch.cat([model.render(part) for part in torch.split(inputs, _IMAGES_AT_ONCE)])
    return FoundLatents(
        inputs=inputs, images=found, errors=_errors(found, images).sqrt(), draw_errors=draw_errors, num_steps=num_steps
    )


def _descend(
    model: RendersInputs,
    targets: Float[Tensor, "N C H W"],
    starts: Float[Tensor, "N S I"],
    *,
    num_steps: int,
    progress: bool,
) -> Float[Tensor, "N I"]:
    """Return the best inputs of each image, from all starts and steps."""
    num_images, num_starts, num_inputs = starts.shape
    repeated = targets.repeat_interleave(num_starts, 0)  # (N S, C, H, W)
    noise, extra = starts.flatten(0, 1).tensor_split([model.num_noise], 1)
    noise = noise.clone().requires_grad_()
    adam = torch.optim.Adam([noise], lr=_LEARNING_RATE)
    least, best = noise.new_full((len(noise),), math.inf), noise.detach().clone()
    bar = tqdm(
        range(num_steps + 1), desc=f"latents of {num_images} images", unit="step", disable=not progress, leave=False
    )
    for step in bar:
        with torch.enable_grad():
            errors = _errors(model.render(torch.cat((noise, extra), 1)), repeated)
            (noise.grad,) = torch.autograd.grad(errors.sum(), noise)
        best = torch.where((errors < least)[:, None], noise, best)
        least = torch.minimum(errors.detach(), least)
        adam.param_groups[0]["lr"] = 0.5 * _LEARNING_RATE * (1 + math.cos(math.pi * step / num_steps))
        adam.step()
        noise.copy_(model.confine(noise))
    inputs = torch.cat((best, extra), 1).view(num_images, num_starts, num_inputs)
    return inputs[torch.arange(num_images), least.view(num_images, num_starts).argmin(1)]


def _errors(images: Float[Tensor, "N C H W"], targets: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the mean squared difference of each image."""
    return (images - targets).square().flatten(1).mean(1)
