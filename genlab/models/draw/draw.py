"""DRAW: A Recurrent Neural Network For Image Generation (Gregor et al. 2015, arXiv:1502.04623).

Differs from the paper:
- the initial canvas, a learned bias in the paper, may be learned from the logits of the training mean: from zero, the
  first minutes of training go into finding it. It and the recurrent states may also stay at zero;
- the layers that emit windows and the forget gate start from given biases;
- grey and colour images have an exact discrete likelihood around sigmoid(c_T) (genlab.models.draw.observation);
- a latent's KL counts 1/2 for every dimension of every step (eq. 11 prints T/2, which holds for one dimension).

Dimensions: B batch, T glimpses, Z latents of one glimpse, U units, H height, C channels, A or W width, K importance
samples, R latent sequences, N pictures, F frames of a film, FH and FW sides of an enlarged picture. Inside, images and
canvases have the layout (B, H, C, A) of genlab.models.draw.attention.
"""

import math
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from genlab.functional import importance_weighted_nll, log_normal_ratio, spherical_interpolation
from genlab.measures import IMPORTANCE_WEIGHTED, Measure, bits_per_dim, negative_log_likelihood
from genlab.models.base import GenerativeModel, require_labels_of_samples
from genlab.models.capabilities import HasPosteriorLayers, Latent
from genlab.models.draw.attention import AttentionBias, ReadAttention, WriteAttention
from genlab.models.draw.glimpse import Glimpse, GlimpseInputs, Posterior, State, kl_per_glimpse
from genlab.models.draw.observation import ObservationModel, default_observation
from genlab.models.draw.windows import GREEN, RED, Color, enlarge, enlargement, outline_window
from genlab.models.ranges import require_count, require_images, require_num_glimpses, require_window_size
from genlab.nn.recurrent import Unrolled
from genlab.parallel.collectives import draw_rows, share_rows
from genlab.types import Batch, CompilationCost, ImageSpec, Loss, Phase

_IMAGES_PER_ARC = 8

# Rows of one pass of the importance-weighted bound: more need memory, fewer leave the matrix products waiting.
_ROWS_PER_PASS = 1024

# Glimpses of one compiled function: more save calls, and take longer to compile.
_MOST_TOGETHER = 5


class DRAW(GenerativeModel, HasPosteriorLayers):
    """The Deep Recurrent Attentive Writer.

    Args:
        spec: Properties of the images, measured by the dataset.
        num_glimpses: T, at least 1.
        num_units: U, units of the encoder and of the decoder, at least 1.
        latent_size: Z, latent dimensions of each glimpse, at least 1.
        read_size: Side of the read window, from 1 to the image's longer side; None reads without attention.
        write_size: Side of the write window, likewise.
        read_bias: Initial values of the parameters of the read window; of no effect without read attention.
        write_bias: The same for the write window. Rows of a filter bank sum to 1, so that a wide filter writes faintly:
            1/gamma should start large.
        forget_bias: Initial bias of the forget gates.
        learned_states: True if the recurrent states start at learned values rather than at zero.
        initial_canvas: "zero"; "learned", from zero; or "training_mean", learned from the logits of the mean image.
        observation: Called with the spec, gives the distribution of an image around sigmoid(c_T);
            None chooses by the number of levels.

    Raises:
        ValueError: An argument is outside its range, or the observation model does not fit the data.
    """

    evaluated_together = 256  # the small products of a glimpse are a third faster than with 64
    selection_measure = "nll_upper_bound_nats"
    kl_measure = "kl_nats"
    measures = MappingProxyType(
        {
            "nll_upper_bound_nats": negative_log_likelihood("upper bound"),
            "reconstruction_nats": Measure(unit="nats/image", kind="part of a bound", direction="neither"),
            "kl_nats": Measure(unit="nats/image", kind="part of a bound", direction="neither"),
            "bits_per_dim": bits_per_dim("upper bound"),
            "kl_per_glimpse_nats": Measure(unit="nats/image", kind="part of a bound", direction="neither"),
            "nll_upper_bound_by_glimpses_nats": Measure(unit="nats/image", kind="upper bound", direction="lower"),
            "nll_importance_weighted_nats": Measure(
                unit="nats/image",
                kind="upper bound",
                direction="lower",
                quantity=IMPORTANCE_WEIGHTED,
                is_importance_weighted=True,
            ),
        }
    )
    picture_groups = MappingProxyType({"reconstructions": 2, "interpolation": _IMAGES_PER_ARC})
    initial_canvas: Tensor
    initial_states: Tensor

    def __init__(
        self,
        spec: ImageSpec,
        *,
        num_glimpses: int,
        num_units: int,
        latent_size: int,
        read_size: int | None,
        write_size: int | None,
        read_bias: AttentionBias,
        write_bias: AttentionBias,
        forget_bias: float,
        learned_states: bool,
        initial_canvas: Literal["zero", "learned", "training_mean"],
        observation: Callable[..., ObservationModel] | None,
    ) -> None:
        super().__init__()
        require_num_glimpses(num_glimpses)
        require_count("model.num_units", num_units)
        require_count("model.latent_size", latent_size)
        self.spec = spec
        self.num_glimpses = num_glimpses
        self.latent_size = latent_size
        self.starts_at_mean = initial_canvas == "training_mean"
        if initial_canvas not in ("zero", "learned", "training_mean"):
            raise ValueError(f"model.initial_canvas must be zero, learned or training_mean, got {initial_canvas}")
        require_window_size("model.read_size", read_size, spec)
        require_window_size("model.write_size", write_size, spec)
        read, write = None, None
        if read_size is not None:
            read = ReadAttention(
                num_units=num_units,
                num_filters=read_size,
                height=spec.height,
                width=spec.width,
                initial_bias=read_bias,
            )
        if write_size is not None:
            write = WriteAttention(
                num_units=num_units,
                num_filters=write_size,
                channels=spec.channels,
                height=spec.height,
                width=spec.width,
                initial_bias=write_bias,
            )
        self.glimpse = Glimpse(
            spec, num_units=num_units, latent_size=latent_size, read=read, write=write, forget_bias=forget_bias
        )
        # A tensor that is not learned is a buffer, not saved: zero is not a value to restore.
        shape = self.glimpse.canvas_shape
        self._start("initial_canvas", torch.zeros(shape), is_learned=initial_canvas != "zero")
        self._start("initial_states", torch.zeros(4, num_units), is_learned=learned_states)
        self.observation = default_observation(spec) if observation is None else observation(spec=spec)

    def _start(self, name: str, value: Tensor, *, is_learned: bool) -> None:
        if is_learned:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value, persistent=False)

    def phases(self) -> tuple[Phase, ...]:
        """Return the only phase, which minimises the variational bound."""
        return (Phase(name="model", modules=(self,), loss=self.loss),)

    @torch.no_grad()
    def latents(self, batch: Batch) -> tuple[Latent, ...]:
        """Return the latent variables of each glimpse."""
        images = self._to_lines(batch.images)
        return tuple(
            Latent(posterior=Normal(mu, log_sigma.exp()), prior=Normal(0.0, 1.0), value=latent)
            for _, (mu, log_sigma, latent) in self._unroll(images, self._noise(len(images)))
        )

    def posterior_layers(self) -> tuple[nn.Module, ...]:
        """Return the layer of mu and log sigma (eqs. 1, 2)."""
        return (self.glimpse.posterior,)

    def compilable(self) -> tuple[nn.Module, ...]:
        """Return the module of a glimpse; up to five glimpses are compiled as one function."""
        return (self.glimpse,)

    def compilation_cost(self) -> CompilationCost:
        """Return the figures for 256 units and 28x28 grey pixels, less for smaller ones."""
        size = min(self.initial_states.shape[1] / 256, 1) * min(self.glimpse.num_pixels / 784, 1) * self.num_glimpses
        if self.glimpse.read is None:
            return CompilationCost(
                seconds=35.0, milliseconds_per_image=0.11 * size, speedup=1.0, speedup_in_bfloat16=1.25
            )
        return CompilationCost(seconds=55.0, milliseconds_per_image=0.13 * size, speedup=1.37)

    @torch.no_grad()
    def initialize(self, batch: Batch) -> None:
        """Start the canvas at the logits of the mean image, and the observation model at its statistics."""
        lines = self._to_lines(batch.images)
        if self.starts_at_mean:
            # One image of each extreme added (Laplace's rule): a pixel that is never on has a finite logit.
            mean = (lines.sum(0) + 1) / (len(lines) + 2)
            self.initial_canvas.copy_(torch.logit(mean))
        self.observation.initialize(lines)

    def loss(self, batch: Batch) -> Loss:
        """Return the bound of eq. 12, L_x + L_z, in nats per image, averaged over the batch."""
        reconstruction, kl = (nats.mean() for nats in self._parts_of_bound(self._to_lines(batch.images)))
        return Loss(
            value=reconstruction + kl,
            metrics={
                "nll_upper_bound_nats": (reconstruction + kl).detach(),
                "reconstruction_nats": reconstruction.detach(),
                "kl_nats": kl.detach(),
            },
        )

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the bound on -log p(x) of each image and its two parts, from one draw of the latents, in nats.

        ``bits_per_dim`` is the bound again, in bits per sub-pixel.

        Raises:
            ValueError: The images are not of the model's size, or a value is no level in [0, 1].
        """
        require_images(batch.images, self.spec)
        return _measures(*self._parts_of_bound(self._to_lines(batch.images)), batch.images[0].numel())

    def _parts_of_bound(self, images: Float[Tensor, "B H C A"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return L_x and L_z of each image, from one draw of the latents, in nats."""
        posteriors, canvas = [], self.initial_canvas
        for state, posterior in self._unroll(images, self._noise(len(images))):
            posteriors.append(posterior)
            canvas = state.canvas
        return self.observation.nll(canvas, images), kl_per_glimpse(posteriors).sum(0)  # eq. 9; eqs. 10, 11

    @torch.no_grad()
    def diagnose(self, batch: Batch, *, num_importance_samples: int) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the measures of :meth:`evaluate`, the importance-weighted bound, and two curves over the glimpses.

        ``kl_per_glimpse_nats`` is KL(q(z_t) || p(z_t)); ``nll_upper_bound_by_glimpses_nats`` is the bound of the model
        that stops after t glimpses, L_x(c_t) + sum of the KL until t; its last point is the bound.

        Args:
            batch: Images to measure.
            num_importance_samples: K of ``nll_importance_weighted_nats``, 0 or more; 0 leaves it out.

        Raises:
            ValueError: A negative number of samples.
        """
        require_count("num_importance_samples", num_importance_samples, least=0)
        images = self._to_lines(batch.images)
        posteriors, reconstructions = [], []
        for state, posterior in self._unroll(images, self._noise(len(images))):
            posteriors.append(posterior)
            reconstructions.append(self.observation.nll(state.canvas, images))
        kl = kl_per_glimpse(posteriors)  # (T, B)
        measures = _measures(reconstructions[-1], kl.sum(0), images[0].numel())
        measures["kl_per_glimpse_nats"] = kl.t()
        measures["nll_upper_bound_by_glimpses_nats"] = (torch.stack(reconstructions) + kl.cumsum(0)).t()
        if num_importance_samples > 0:
            log_weights = self._log_weights(images, num_importance_samples)
            measures["nll_importance_weighted_nats"] = importance_weighted_nll(log_weights)
        return measures

    def _log_weights(self, images: Float[Tensor, "B H C A"], num_samples: int) -> Float[Tensor, "K B"]:
        """Return log p(x, z_k) / q(z_k | x) of K draws of all latents, in passes of about _ROWS_PER_PASS rows."""
        per_pass = max(1, _ROWS_PER_PASS // len(images))
        passes = []
        for first in range(0, num_samples, per_pass):
            count = min(per_pass, num_samples - first)
            repeated = images.repeat(count, 1, 1, 1)  # (k B, H, C, A)
            noise = self._noise(len(repeated))
            log_ratio, canvas = repeated.new_zeros(len(repeated)), self.initial_canvas
            for (state, posterior), step_noise in zip(self._unroll(repeated, noise), noise, strict=True):
                log_ratio += log_normal_ratio(posterior.latent, step_noise, posterior.log_sigma).sum(1)
                canvas = state.canvas
            passes.append((log_ratio - self.observation.nll(canvas, repeated)).view(count, len(images)))
        return torch.cat(passes)

    @torch.no_grad()
    def sample(
        self, num_samples: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Return the mean images sigmoid(c_T) of latents from the prior, as the paper shows them (section 2.3)."""
        require_labels_of_samples(labels, num_samples, self)
        noise = self._noise(num_samples, generator)

        def draw(rows: slice) -> Tensor:
            *_, last = self._generate(noise[:, rows])
            return _to_images(self.observation.mean(last.canvas))

        return share_rows(draw, num_samples)

    def _canvas_images(self, num_rows: int, states: list[State]) -> Float[Tensor, "F N C H W"]:
        canvases = [self._initial_state(num_rows).canvas, *(state.canvas for state in states)]
        return _to_images(self.observation.mean(torch.stack(canvases)))

    @torch.no_grad()
    def visualize(
        self, batch: Batch | None, *, num_samples: int, generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return pictures of samples, reconstructions and the canvases that lead to them.

        Always ``samples``; ``canvases``, a film of c_0 to c_T of the same samples with the window of each write in
        red; and ``interpolation``, rows of images along the great arc between two latent sequences from the prior.
        With a batch also the pictures of :meth:`visualize_given`; then ``interpolation`` joins the latents of
        neighbouring inputs.
        """
        require_count("num_samples", num_samples)
        states = list(self._generate(self._noise(num_samples, generator)))
        canvases = self._canvas_images(num_samples, states)
        pictures = {"samples": canvases[-1], "canvases": self._film_of_writes(canvases, states)}
        arc_length = min(_IMAGES_PER_ARC, num_samples)
        num_arcs = num_samples // arc_length
        if batch is None:
            ends = self._noise(2 * num_arcs, generator)
            return pictures | {"interpolation": self._interpolate(ends, arc_length)}
        given, latents = self._pictures_of(batch.images[: max(1, num_samples // 2)], generator)
        num_ends = 2 * min(num_arcs, latents.shape[1] // 2)
        if num_ends > 0:
            given["interpolation"] = self._interpolate(latents[:, :num_ends], arc_length)
        return pictures | given

    @torch.no_grad()
    def visualize_given(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Float[Tensor, "..."]]:
        """Return pictures of the inputs, from the latents of their posterior.

        ``reconstructions`` has each input followed by its reconstruction; ``canvases_reconstruction`` is a film of each
        input with the window of each read in green beside its canvas with the window of each write in red.
        """
        return self._pictures_of(batch.images, generator)[0]

    def _pictures_of(
        self, images: Float[Tensor, "N C H W"], generator: Generator | None
    ) -> tuple[dict[str, Tensor], Float[Tensor, "T N Z"]]:
        """Return the pictures of :meth:`visualize_given`, and their latents."""
        lines = self._to_lines(images)
        steps = list(self._unroll(lines, self._noise(len(lines), generator)))
        states = [state for state, _ in steps]
        canvases = self._canvas_images(len(lines), states)
        films = (self._film_of_reads(images, states), self._film_of_writes(canvases, states))
        pictures = {
            "reconstructions": torch.stack((images, canvases[-1]), 1).flatten(0, 1),
            "canvases_reconstruction": torch.cat(films, -1),
        }
        return pictures, torch.stack([posterior.latent for _, posterior in steps])

    def _outlined(
        self, pictures: Float[Tensor, "N 3 FH FW"], attention: nn.Module | None, state: State, color: Color
    ) -> Float[Tensor, "N 3 FH FW"]:
        """Draw the window that the decoder's state chooses; without attention there is no window."""
        if not isinstance(attention, ReadAttention | WriteAttention):
            return pictures
        window = attention.window(state.decoder_hidden)
        return outline_window(
            pictures,
            window,
            num_filters=attention.grid.num_filters,
            factor=enlargement(self.spec.height, self.spec.width),
            color=color,
        )

    def _interpolate(self, ends: Float[Tensor, "T R Z"], arc_length: int) -> Float[Tensor, "N C H W"]:
        """Return a row of images from each even latent sequence to the odd one after it."""
        rows = []
        for start, end in zip(ends[:, ::2].unbind(1), ends[:, 1::2].unbind(1), strict=True):  # (T, Z) each
            fractions = [step / max(1, arc_length - 1) for step in range(arc_length)]
            arc = torch.stack([spherical_interpolation(start, end, fraction) for fraction in fractions], 1)
            *_, last = self._generate(arc)
            rows.append(_to_images(self.observation.mean(last.canvas)))
        return torch.cat(rows)

    def _film_of_writes(
        self, canvases: Float[Tensor, "F N C H W"], states: list[State]
    ) -> Float[Tensor, "F N 3 FH FW"]:
        """Return a film: frame 0 is the canvas before the first glimpse, frame t after the t-th, with its window."""
        frames = [enlarge(canvases[0])]
        for canvas, state in zip(canvases[1:], states, strict=True):
            frames.append(self._outlined(enlarge(canvas), self.glimpse.write, state, RED))
        return torch.stack(frames)

    def _film_of_reads(self, images: Float[Tensor, "N C H W"], states: list[State]) -> Float[Tensor, "F N 3 FH FW"]:
        """Return a film: frame t is the input with the window of the t-th glimpse's read; frame 0 has no window."""
        picture = enlarge(images)
        frames = [picture]
        # The window of a read is chosen by the decoder's state before the glimpse.
        for state in (self._initial_state(len(images)), *states[:-1]):
            frames.append(self._outlined(picture, self.glimpse.read, state, GREEN))
        return torch.stack(frames)

    def _noise(self, num_rows: int, generator: Generator | None = None) -> Float[Tensor, "T B Z"]:
        """Return independent standard normal noise for all glimpses, from one draw."""

        def draw(num: int) -> Tensor:
            shape = (self.num_glimpses, num, self.latent_size)
            return torch.randn(shape, generator=generator, device=self.initial_canvas.device).to(self.dtype)

        return draw_rows(draw, num_rows, dim=1)

    def _to_lines(self, images: Float[Tensor, "B C H A"]) -> Float[Tensor, "B H C A"]:
        return images.to(self.dtype).transpose(1, 2).contiguous()

    def _initial_state(self, num_rows: int) -> State:
        encoder_hidden, encoder_cell, decoder_hidden, decoder_cell = (
            self.initial_states.unsqueeze(1).expand(-1, num_rows, -1).unbind(0)
        )
        canvas = self.initial_canvas.expand(num_rows, -1, -1, -1)
        # Hidden states pass through tanh, which bounds them as the cell does.
        state = State(canvas, encoder_hidden.tanh(), encoder_cell, decoder_hidden.tanh(), decoder_cell)
        # In the layout of the states that follow, or else the first glimpse is compiled on its own.
        return State(*(tensor.contiguous() for tensor in state))

    def _unroll(
        self, images: Float[Tensor, "B H C A"], noise: Float[Tensor, "T B Z"]
    ) -> Iterator[tuple[State, Posterior]]:
        num_steps, batch_size, _ = noise.shape
        cell = self.glimpse.decoder
        encoder = Unrolled(*self.glimpse.encoder_weights(images), num_steps=num_steps, batch_size=batch_size)
        decoder = Unrolled(cell.weight, cell.bias, num_steps=num_steps, batch_size=batch_size)
        state = self._initial_state(len(images))
        inputs = [
            GlimpseInputs(images, step_noise, encoder.weight, encoder_bias, decoder.weight, decoder_bias)
            for step_noise, encoder_bias, decoder_bias in zip(noise, encoder.biases, decoder.biases, strict=True)
        ]
        together = next(count for count in range(_MOST_TOGETHER, 0, -1) if num_steps % count == 0)
        for first in range(0, num_steps, together):
            results = self.glimpse(inputs[first : first + together], state)
            for state, posterior, gate_inputs in results:
                encoder.record(gate_inputs.encoder)
                decoder.record(gate_inputs.decoder)
                yield state, posterior

    def _generate(self, latents: Float[Tensor, "T B Z"]) -> Iterator[State]:
        """Run the decoder alone, on given latents, and yield its states."""
        state = self._initial_state(latents.shape[1])
        for latent in latents.unbind(0):
            state = self.glimpse.generate(latent, state)
            yield state


def _to_images(lines: Float[Tensor, "*batch H C W"]) -> Float[Tensor, "*batch C H W"]:
    return lines.transpose(-3, -2).contiguous()


def _measures(reconstruction: Float[Tensor, " B"], kl: Float[Tensor, " B"], num_pixels: int) -> dict[str, Tensor]:
    bound = reconstruction + kl
    return {
        "nll_upper_bound_nats": bound,
        "reconstruction_nats": reconstruction,
        "kl_nats": kl,
        "bits_per_dim": bound / (num_pixels * math.log(2)),
    }
