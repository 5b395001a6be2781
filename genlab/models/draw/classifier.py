"""Classification with DRAW's selective attention (Gregor et al. 2015, arXiv:1502.04623, section 4.1).

A recurrent network looks at the image through T windows, each chosen by its state after the one before, and names the
class from its last state. There is no decoder, no latent and no error image.

Differs from the paper:
- the layer that emits windows and the forget gates start from given biases, as in genlab.models.draw.draw.

Dimensions: B batch, T glimpses, U units, K classes, H height, C channels, A or W width, J inputs of the recurrent
cell, G = 4 U gates.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.base import Model
from genlab.models.classification import CLASSIFICATION_MEASURES, classification_loss, classification_measures
from genlab.models.draw.attention import AttentionBias, ReadAttention
from genlab.models.draw.windows import GREEN, enlarge, enlargement, outline_window
from genlab.models.ranges import require_count, require_num_glimpses, require_window_size
from genlab.nn.recurrent import LSTMCell, Unrolled, update_cell
from genlab.types import Batch, ImageSpec, Loss, Phase


class ClassifierState(NamedTuple):
    """State of the classifier between two glimpses."""

    hidden: Float[Tensor, "B U"]
    cell: Float[Tensor, "B U"]


class ReadStep(nn.Module):
    """One glimpse of the classifier: read through the state's window, then update the state.

    Args:
        spec: Size and channels of the images.
        num_units: U.
        read_size: N.
        read_bias: Initial values of the window's parameters.
        forget_bias: Initial bias of the forget gate.
    """

    def __init__(
        self, spec: ImageSpec, *, num_units: int, read_size: int, read_bias: AttentionBias, forget_bias: float
    ) -> None:
        super().__init__()
        self.read = ReadAttention(
            num_units=num_units, num_filters=read_size, height=spec.height, width=spec.width, initial_bias=read_bias
        )
        num_inputs = spec.channels * read_size**2
        self.recurrent = LSTMCell(num_inputs=num_inputs, num_units=num_units, forget_bias=forget_bias)

    def forward(
        self,
        images: Float[Tensor, "B H C A"],
        state: ClassifierState,
        weight: Float[Tensor, "G J"],
        bias: Float[Tensor, "... G"],
    ) -> tuple[ClassifierState, Float[Tensor, "B J"]]:
        """Return the next state and the input of the weight (for :class:`genlab.nn.recurrent.Unrolled`)."""
        (patch,) = self.read((images,), state.hidden)
        inputs = torch.cat((patch, state.hidden), 1)
        return ClassifierState(*update_cell(torch.addmm(bias, inputs, weight.t()), state.cell)), inputs


class DRAWClassifier(Model):
    """A classifier with recurrent attention.

    Args:
        spec: Properties of the images, measured by the dataset; it must have classes.
        num_glimpses: T, at least 1.
        num_units: U, at least 1.
        read_size: N, from 1 to the image's longer side.
        read_bias: Initial values of the parameters of the window.
        forget_bias: Initial bias of the forget gate.
        learned_states: True if the recurrent state starts at learned values rather than at zero.

    Raises:
        ValueError: An argument is outside its range, or the data have no classes.
    """

    evaluated_together = 256
    selection_measure = "cross_entropy_nats"
    measures = CLASSIFICATION_MEASURES
    initial_state: Tensor

    def __init__(
        self,
        spec: ImageSpec,
        *,
        num_glimpses: int,
        num_units: int,
        read_size: int,
        read_bias: AttentionBias,
        forget_bias: float,
        learned_states: bool,
    ) -> None:
        super().__init__()
        require_num_glimpses(num_glimpses)
        require_count("model.num_units", num_units)
        require_window_size("model.read_size", read_size, spec)
        if spec.num_classes < 2:
            raise ValueError(
                f"model=draw_classifier needs images of at least 2 classes, got {spec.num_classes}; choose labelled "
                "data"
            )
        self.spec = spec
        self.num_glimpses = num_glimpses
        self.step = ReadStep(
            spec, num_units=num_units, read_size=read_size, read_bias=read_bias, forget_bias=forget_bias
        )
        self.classify = nn.Linear(num_units, spec.num_classes)
        start = torch.zeros(2, num_units)
        if learned_states:
            self.initial_state = nn.Parameter(start)
        else:
            self.register_buffer("initial_state", start, persistent=False)

    def phases(self) -> tuple[Phase, ...]:
        """Return the only phase, which minimises the cross-entropy."""
        return (Phase(name="model", modules=(self,), loss=self.loss),)

    def compilable(self) -> tuple[nn.Module, ...]:
        """Return the module of one glimpse."""
        return (self.step,)

    def loss(self, batch: Batch) -> Loss:
        """Return cross-entropy after the last glimpse (nats) and share of errors, averaged over the labelled images."""
        return classification_loss(self.logits(batch.images), batch.labels)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the cross-entropy of each image in nats, and its error: 1 if the predicted class is wrong, else 0."""
        return classification_measures(self.logits(batch.images), batch.labels)

    def logits(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return the log-probabilities of the classes after the last glimpse, up to a constant."""
        *_, last = self._unroll(images)
        return at_least_float32(self.classify(last.hidden))

    @torch.no_grad()
    def visualize(
        self, batch: Batch | None, *, num_samples: int, generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return the film of :meth:`visualize_given`; nothing without a batch."""
        require_count("num_samples", num_samples)
        if batch is None:
            return {}
        given = Batch(images=batch.images[:num_samples], labels=batch.labels[:num_samples])
        return self.visualize_given(given, generator=generator)

    @torch.no_grad()
    def visualize_given(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Float[Tensor, "..."]]:
        """Return ``glimpses``, a film of the images with the window of each glimpse in green."""
        del generator
        images = batch.images
        pictures = enlarge(images)
        grid = self.step.read.grid
        frames = [
            outline_window(
                pictures,
                self.step.read.window(state.hidden),
                num_filters=grid.num_filters,
                factor=enlargement(self.spec.height, self.spec.width),
                color=GREEN,
            )
            for state in (self._start(len(images)), *self._unroll(images))
        ]
        # The state after the last glimpse chooses a window through which nothing is read.
        return {"glimpses": torch.stack(frames[:-1])}

    def _start(self, num_rows: int) -> ClassifierState:
        hidden, cell = self.initial_state.unsqueeze(1).expand(-1, num_rows, -1).unbind(0)
        return ClassifierState(hidden.tanh(), cell)

    def _unroll(self, images: Float[Tensor, "B C H W"]) -> Iterator[ClassifierState]:
        lines = images.to(self.dtype).transpose(1, 2).contiguous()  # (B, H, C, A)
        cell = self.step.recurrent
        shared = Unrolled(cell.weight, cell.bias, num_steps=self.num_glimpses, batch_size=len(lines))
        state = self._start(len(lines))
        for bias in shared.biases:
            state, inputs = self.step(lines, state, shared.weight, bias)
            shared.record(inputs)
            yield state
