"""Classification error of a code that was learned without labels, after codes are matched to classes.

InfoGAN (Chen et al. 2016, arXiv:1606.03657, section 7.2): "by matching each category in c1 to a digit type" its code
classifies MNIST with 5 % error. The paper does not say whether two codes may take one digit; with ten codes for ten
digits and an error that low each digit has a code of its own, and the two matchings agree. If they differ, the
one-to-one error is the larger on the images that assign the classes.

Dimensions: N images, Q codes, K classes.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genlab.data.dataset import Dataset, Split
from genlab.measures import Measure
from genlab.training.evaluation import Average, average_measures
from genlab.types import UNLABELLED, Batch

UNMATCHED = -1
NUM_MATCHING_IMAGES = 10_000
Matching = Literal["many_to_one", "one_to_one"]
MATCHINGS: tuple[Matching, ...] = ("many_to_one", "one_to_one")
CODE_MEASURES = {
    f"code_error_{matching}": Measure(unit="1", kind="exact", direction="lower", needs_label=True)
    for matching in MATCHINGS
}


@runtime_checkable
class CodePredictor(Protocol):
    """A model that may predict a categorical code of an image."""

    def predict_code(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, " B"] | None:
        """Return the most likely category of each image, from 0; None if the model has no such code."""


def match_codes(codes: Int[Tensor, " N"], labels: Int[Tensor, " N"], *, matching: Matching) -> Int[Tensor, " Q"]:
    """Return the class of each code.

    Args:
        codes: The code of each image, from 0.
        labels: Its class, from 0.
        matching: ``many_to_one`` gives each code its commonest class; ``one_to_one`` gives no class to two codes and
            maximises the number of images whose code's class is right (Kuhn 1955). Codes left over, and those that no
            image has, get UNMATCHED.
    """
    num_codes, num_classes = int(codes.max()) + 1, int(labels.max()) + 1
    table = torch.bincount(codes * num_classes + labels, minlength=num_codes * num_classes)
    table = table.view(num_codes, num_classes)
    if matching == "many_to_one":
        classes = table.argmax(1)
    else:
        rows, columns = linear_sum_assignment(table.cpu().numpy(), maximize=True)
        classes = torch.full((num_codes,), UNMATCHED)
        classes[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return classes.masked_fill(table.sum(1) == 0, UNMATCHED)


def code_errors(
    codes: Int[Tensor, " N"], labels: Int[Tensor, " N"], *, classes: Int[Tensor, " Q"]
) -> Float[Tensor, " N"]:
    """Return 1 for each image whose code has another class than the image, else 0.

    Args:
        codes: The code of each image; one that the matching never saw is an error.
        labels: Its class.
        classes: Result of `match_codes`, preferably of other images.
    """
    matched = torch.cat((classes, torch.tensor([UNMATCHED])))[codes.clamp_max(len(classes))]
    return (matched != labels).double()


def code_averages(
    model: CodePredictor,
    dataset: Dataset,
    split: Split,
    *,
    limit: int | None,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> dict[str, Average]:
    """Return the errors of a model's code on a split, after matching on up to 10,000 training images.

    Nothing where the model has no code, or none of those images has a label.

    Args:
        model: In evaluation mode, on the device.
        dataset: Labelled.
        split: Split on which the error is measured.
        limit: Measure a random choice of so many images; None takes all.
        batch_size: Images at a time.
        seed: Of that choice, of the training images' and of binarisation.
        device: Device of the model.
    """
    codes, labels = [], []
    for batch in dataset.unreduced.batches(
        "train", batch_size=batch_size, seed=seed, device=device, limit=NUM_MATCHING_IMAGES
    ):
        read = _codes(model, batch)
        if read is None:
            return {}
        codes.append(read)
        labels.append(batch.labels.cpu())
    all_labels = torch.cat(labels)
    is_labelled = all_labels != UNLABELLED
    if not is_labelled.any():
        return {}
    given = (torch.cat(codes)[is_labelled], all_labels[is_labelled])
    matchings = {f"code_error_{matching}": match_codes(*given, matching=matching) for matching in MATCHINGS}

    def evaluate(batch: Batch) -> dict[str, Tensor]:
        predicted, expected = _codes(model, batch), batch.labels.cpu()
        assert predicted is not None
        return {name: code_errors(predicted, expected, classes=classes) for name, classes in matchings.items()}

    batches = dataset.batches(split, batch_size=batch_size, seed=seed, device=device, limit=limit)
    return average_measures(evaluate, batches, declarations=CODE_MEASURES)


@torch.no_grad()
def _codes(model: CodePredictor, batch: Batch) -> Int[Tensor, " B"] | None:
    codes = model.predict_code(batch.images)
    return None if codes is None else codes.cpu()
