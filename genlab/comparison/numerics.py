"""Changes of genlab's numerics, and the published rows that are older than one that concerns them."""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from genlab.comparison.results import MARK, Rows

LEGEND = (
    f"{MARK} A later commit changed the numerics of this value (Numerics in CHANGELOG.md): a new run may differ by "
    "more than the seed does."
)


@dataclass(frozen=True)
class Change:
    """A line under Numerics in CHANGELOG.md.

    Attributes:
        line: Its first words.
        commit: The commit that made the change.
        experiments: Patterns of the names of experiments whose values it may move beyond rounding; empty for none.
        measures: Patterns of the measures that it may move.
    """

    line: str
    commit: str
    experiments: tuple[str, ...] = ()
    measures: tuple[str, ...] = ("*",)

    def concerns(self, experiment: str, measure: str) -> bool:
        """Return True if it may move this measure of this experiment."""
        return _matches(experiment, self.experiments) and _matches(measure, self.measures)


_GANS = ("*gan_*",)
_OF_SAMPLES = ("*_classifier", "*_inception")
_BOUNDS = ("nll_upper_bound_nats", "nll_importance_weighted_nats", "bits_per_dim")

CHANGES = (
    Change("PixelCNN and gated PixelCNN with more than 32 logits", "7518923", ("*pixelcnn_cifar10",)),
    Change("A GAN is tested, sampled from and evaluated at its best", "e1f1e71", _GANS),
    Change("`optimizer=` with another option", "6a2ba6a"),
    Change("PixelCNN++ draws at temperature 1", "dfaf13f"),
    Change("`model=semi_supervised_gan` and `model=infogan`", "77f76a2", ("semi_supervised_gan_*", "infogan_*")),
    Change("Models compute in the type of their parameters", "ca7b775"),
    Change("InfoGAN's standard deviations and PixelCNN++'s scales", "ca7b775", ("infogan_*", "pixelcnn_pp_*")),
    Change("Runs of several processes with a model of one's own", "ee8b221"),
    Change("The recipes of `pixelcnn`, `gated_pixelcnn`", "cacf1c5", (*_GANS, "draw_classifier_*")),
    Change("Standard errors: of precision, recall", "58238b7"),
    Change("The Inception-style score and the nearest neighbours", "58238b7", _GANS, ("inception_style_score_*",)),
    Change("Temperatures near 0 and very large ones", "58238b7"),
    Change("Measures of a model that couples the images", "0f1ae5f", ("improved_gan_*",), ("score_*", "accuracy_*")),
    Change("First version", "29cb17a"),
    Change("The noise of an evaluation belongs to (seed, split", "2b0b878", ("draw_*",), _BOUNDS),
    Change("Logged metrics of reduced precision", "6adc5dc"),
    Change("On CUDA TF32 is off", "fc2d5bd"),
    Change("On CUDA the learning rate is a float32 tensor", "6adc5dc"),
    Change("With several processes the watch for collapse", "7b7861f"),
    Change("`genlab evaluate` rounds samples", "fde1d17", _GANS, _OF_SAMPLES),
    Change("The noise of `dataset.binarization=stochastic` is", "f5e4a77", ("*_dynamic_mnist*",)),
    Change("DCGAN's channels stop growing", "a843083"),
    Change("The noise of DRAW's evaluation", "daf49a6", ("draw_*",), _BOUNDS),
    Change("PixelCNN, gated PixelCNN and PixelCNN++ compute", "4c9c6e7"),
    Change("DRAW's gradients of the recurrent weights", "bfa774a"),
    Change("On a CPU, runs of DRAW", "554a7f4"),
    Change("DRAW with attention and its classifier train", "11e2db3"),
    Change("A semi-supervised GAN is tested and evaluated", "8195095", ("semi_supervised_gan_*",)),
    Change("Compiled DRAW, its classifier and gated PixelCNN", "f18c0e5"),
    Change("PixelCNN++ adds the components of its mixture", "7a3dd05"),
    Change("`trainer.compile=auto` reckons with new", "9141505"),
    Change("Compiled DRAW runs up to five glimpses", "d3bf26c"),
    Change("On the CPU numbers below 1.2e-38", "d853661"),
    Change("With bfloat16 products `trainer.compile=auto` reckons", "d90e4e2"),
    Change("With bfloat16 products `trainer.compile=auto` takes", "1807de9", ("gated_pixelcnn_*",)),
    Change("On the CPU dropout draws 16 random bits", "1cfe7e5"),
    Change("The noise of `dataset.binarization=stochastic` has 8 bits", "15b5cb0", ("*_dynamic_mnist*",)),
    Change("`dataset=folder` with a `validation_fraction`", "e208c26"),
    Change("`experiment=draw_no_attention_mnist_long`", "83d0161", ("draw_no_attention_mnist_long",)),
    Change("DRAW without attention, PixelCNN over blocks, PixelCNN++", "416c9dd"),
    Change("The logged cross-entropy and error of a classifier", "3bfb7c1"),
    Change("`experiment=draw_classifier_cluttered_mnist` trains", "3b5bb8b", ("draw_classifier_cluttered_mnist",)),
    Change("On the CPU DCGAN's generator of grey images", "b9059c6"),
    Change(
        "Batch normalisation in a discriminator has",
        "969919e",
        ("dcgan_*", "infogan_*", "acgan_*"),
        ("score_*", "accuracy_*", "error"),  # a trained InfoGAN's code error moves by far less than with its seed
    ),
    Change("`weight_normalization` starts the projection", "945fa58"),
    Change("A code that no image of the matching has", "25498a2"),
    Change("`technique=[adaptive_augment]` moves", "518d919", ("r3gan_cifar10",)),
    Change("`experiment=cgan_mnist` trains the networks", "4daf06f", ("cgan_mnist",)),
    Change(
        "`experiment=draw_classifier_cluttered_mnist_quick` averages",
        "ce4ea09",
        ("draw_classifier_cluttered_mnist_quick",),
    ),
    Change("`dataset=cluttered_mnist` has fragments", "628e234", ("draw_classifier_*",)),
    Change("`experiment=draw_classifier_cluttered_mnist` averages", "ae5b607", ("draw_classifier_cluttered_mnist",)),
    Change(
        "`experiment=draw_classifier_cluttered_mnist_quick` has", "f863df6", ("draw_classifier_cluttered_mnist_quick",)
    ),
    Change("Standard errors of a model that couples", "8229fd5"),
    Change("In several processes frozen weights", "653e47f"),
)


def marked(results: Iterable[Rows], ancestors: Callable[[str], Collection[str]]) -> list[Rows]:
    """Return rows of results with a mark at each value that is older than a change concerning it.

    Args:
        results: Those of earlier tables may be marked already.
        ancestors: From a commit to it and all commits before it, in full; empty where the history does not hold it.
    """
    return [_marked(rows, ancestors) for rows in results]


def _marked(rows: Rows, ancestors: Callable[[str], Collection[str]]) -> Rows:
    commit = rows[0].commit.partition(",")[0].rstrip("+")
    known = {each[:7] for each in ancestors(commit)} if commit else set()
    if not known:
        return rows
    experiment, later = rows[0].experiment.strip("`"), [change for change in CHANGES if change.commit not in known]
    return tuple(
        replace(
            row,
            ours=row.ours.removesuffix(MARK) + MARK * any(change.concerns(experiment, row.name) for change in later),
        )
        if row.is_measured
        else row
        for row in rows
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
