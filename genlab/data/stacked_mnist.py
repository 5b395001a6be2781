"""Stacked MNIST: three digits as the channels of one colour picture, with a thousand modes.

Metz et al. (2016, 1611.02163); 128,000 training pictures as in PacGAN (Lin et al. 2017, 1712.04086).
"""

from jaxtyping import Int, UInt8
from torch import Tensor

from genlab.data.composition import Draw, compose_splits, read_digits
from genlab.data.preparation import RawDataset, prepared
from genlab.data.store import Store


@prepared
def stacked_mnist(
    *,
    root: str | None,
    download: bool,
    num_validation_digits: int,
    num_train: int,
    num_validation: int,
    num_test: int,
    seed: int,
) -> RawDataset:
    """Return stacked MNIST: three digits r, g, b drawn with replacement, of class 100 r + 10 g + b.

    Args:
        root: Folder that holds ``MNIST/raw``; see `existing_root`.
        download: Fetch MNIST if it is missing or damaged.
        num_validation_digits: The last so many MNIST training digits make the validation pictures.
        num_train: Pictures to train on.
        num_validation: Pictures to validate on.
        num_test: Pictures to test on.
        seed: Seed of the composition.

    Raises:
        ConfigurationError: A number is out of range.
        DataError: MNIST is missing or damaged and could not be fetched.
    """
    stores = compose_splits(
        stack_digits,
        read_digits(root=root, download=download, num_validation_digits=num_validation_digits),
        num_images={"train": num_train, "validation": num_validation, "test": num_test},
        seed=seed,
    )
    return RawDataset(
        name="stacked_mnist",
        stores=stores,
        num_levels=256,
        class_names=[f"{number:03d}" for number in range(1000)],
        source=f"stacked MNIST, seed {seed}",
        has_class_per_channel=True,
    )


def stack_digits(
    digits: Store, rows: Int[Tensor, " B"], draw: Draw
) -> tuple[UInt8[Tensor, "B 3 28 28"], Int[Tensor, " B"]]:
    """Return as many random triples of digits as there are rows, and their classes."""
    images, labels = digits.gather(draw(len(digits), len(rows) * 3))
    hundreds, tens, units = labels.view(-1, 3).unbind(1)
    return images.view(-1, 3, *images.shape[2:]), 100 * hundreds + 10 * tens + units
