"""One glimpse of DRAW: read, encode, draw a latent, decode, write (Gregor et al. 2015, arXiv:1502.04623, section 2).

Dimensions: B batch, Z latents of one glimpse, U units, G = 4 U gates, J and K inputs of the encoder's and the decoder's
gates, H height, C channels, A width. Images and canvases have the layout (B, H, C, A) of genlab.models.draw.attention.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import kl_to_standard_normal
from genlab.models.draw.attention import ReadAttention, WriteAttention
from genlab.nn.recurrent import LSTMCell, update_cell
from genlab.types import ImageSpec


class State(NamedTuple):
    """The recurrent state that one glimpse passes to the next."""

    canvas: Float[Tensor, "B H C A"]
    encoder_hidden: Float[Tensor, "B U"]
    encoder_cell: Float[Tensor, "B U"]
    decoder_hidden: Float[Tensor, "B U"]
    decoder_cell: Float[Tensor, "B U"]


class Posterior(NamedTuple):
    """q(z_t | x, z_<t), and the draw from it."""

    mu: Float[Tensor, "B Z"]
    log_sigma: Float[Tensor, "B Z"]
    latent: Float[Tensor, "B Z"]


def kl_per_glimpse(posteriors: Sequence[Posterior]) -> Float[Tensor, "T B"]:
    """Return KL(q(z_t) || p(z_t)) of each of T glimpses, in nats (eqs. 10, 11), in one set of kernels."""
    mu = torch.stack([posterior.mu for posterior in posteriors])
    log_sigma = torch.stack([posterior.log_sigma for posterior in posteriors])
    return kl_to_standard_normal(mu, log_sigma).sum(2)


class GlimpseInputs(NamedTuple):
    """The inputs of one glimpse that do not depend on the state."""

    images: Float[Tensor, "B H C A"]
    noise: Float[Tensor, "B Z"]
    encoder_weight: Float[Tensor, "G J"]
    encoder_bias: Float[Tensor, "... G"]
    decoder_weight: Float[Tensor, "G K"]
    decoder_bias: Float[Tensor, "... G"]


class GateInputs(NamedTuple):
    """Inputs of the two cells' gates, for the gradients of their weights (:class:`genlab.nn.recurrent.Unrolled`)."""

    encoder: Float[Tensor, "B J"]
    decoder: Float[Tensor, "B K"]


class Glimpse(nn.Module):
    """One time step (eqs. 3 to 8): read, encode, draw a latent, decode, write.

    Args:
        spec: Size and channels of the images.
        num_units: U, of the encoder and of the decoder.
        latent_size: Z.
        read: Attention of the reader; None reads the whole image.
        write: Attention of the writer; None writes the whole image.
        forget_bias: Initial bias of both forget gates.
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        num_units: int,
        latent_size: int,
        read: ReadAttention | None,
        write: WriteAttention | None,
        forget_bias: float,
    ) -> None:
        super().__init__()
        self.canvas_shape = (spec.height, spec.channels, spec.width)
        self.num_pixels = spec.height * spec.channels * spec.width
        self.latent_size = latent_size
        self.read = read
        self.write = write if write else nn.Linear(num_units, self.num_pixels)
        num_read = 2 * (spec.channels * read.grid.num_filters**2 if read else self.num_pixels)
        self.encoder = LSTMCell(num_inputs=num_read + num_units, num_units=num_units, forget_bias=forget_bias)
        self.posterior = nn.Linear(num_units, 2 * latent_size)
        self.decoder = LSTMCell(num_inputs=latent_size, num_units=num_units, forget_bias=forget_bias)

    def encoder_weights(self, images: Float[Tensor, "B H C A"]) -> tuple[Float[Tensor, "G J"], Float[Tensor, "... G"]]:
        """Return weight and bias of the encoder's gates in the loop over glimpses.

        Without attention the encoder sees W_x x + W_e (x - sigmoid(c)) = (W_x + W_e) x - W_e sigmoid(c). The first
        term is the same at every glimpse: it is part of the bias, and the loop has half of the largest product left.
        """
        weight, bias = self.encoder.weight, self.encoder.bias
        if self.read is not None:
            return weight, bias
        num_rest = weight.shape[1] - 2 * self.num_pixels
        of_image, of_error, of_states = weight.split_with_sizes([self.num_pixels, self.num_pixels, num_rest], 1)
        from_image = nn.functional.linear(images.flatten(1), of_image + of_error, bias)  # (B, G)
        return torch.cat((-of_error, of_states), 1), from_image

    def forward(self, inputs: Sequence[GlimpseInputs], state: State) -> list[tuple[State, Posterior, GateInputs]]:
        """Return what :meth:`step` returns, for each of several glimpses; compiled, they are one function."""
        results = []
        for step_inputs in inputs:
            result = self.step(step_inputs, state)
            state = result[0]
            results.append(result)
        return results

    def step(self, inputs: GlimpseInputs, state: State) -> tuple[State, Posterior, GateInputs]:
        """Return the next state, the posterior with its draw mu + sigma * noise, and the inputs of the gates."""
        mean = torch.sigmoid(state.canvas)
        if self.read is None:
            seen: tuple[Tensor, ...] = (mean.flatten(1),)  # x and eq. 3 are in `encoder_weights`
        else:
            # Reads are linear: the patch of x_hat = x - sigmoid(c) (eq. 3) is that of x minus that of sigmoid(c).
            of_image, of_mean = self.read((inputs.images, mean), state.decoder_hidden)
            seen = (of_image, of_image - of_mean)  # eq. 4
        encoder_inputs = torch.cat((*seen, state.decoder_hidden, state.encoder_hidden), 1)
        gates = torch.addmm(inputs.encoder_bias, encoder_inputs, inputs.encoder_weight.t())
        encoder_hidden, encoder_cell = update_cell(gates, state.encoder_cell)  # eq. 5
        mu, log_sigma = self.posterior(encoder_hidden).to(mean.dtype).chunk(2, 1)  # eqs. 1, 2
        latent = torch.addcmul(mu, torch.exp(log_sigma), inputs.noise)  # eq. 6
        decoder_inputs = torch.cat((latent, state.decoder_hidden), 1)
        gates = torch.addmm(inputs.decoder_bias, decoder_inputs, inputs.decoder_weight.t())
        decoder_hidden, decoder_cell = update_cell(gates, state.decoder_cell)  # eq. 7
        canvas = state.canvas + self.written(decoder_hidden)  # eq. 8
        next_state = State(canvas, encoder_hidden, encoder_cell, decoder_hidden, decoder_cell)
        return next_state, Posterior(mu, log_sigma, latent), GateInputs(encoder_inputs, decoder_inputs)

    def generate(self, latent: Float[Tensor, "B Z"], state: State) -> State:
        """Return the next state of the decoder alone, after a latent from anywhere (section 2.3)."""
        decoder_inputs = torch.cat((latent, state.decoder_hidden), 1)
        gates = nn.functional.linear(decoder_inputs, self.decoder.weight, self.decoder.bias)
        hidden, cell = update_cell(gates, state.decoder_cell)
        return state._replace(canvas=state.canvas + self.written(hidden), decoder_hidden=hidden, decoder_cell=cell)

    def written(self, hidden: Float[Tensor, "B U"]) -> Float[Tensor, "B H C A"]:
        """Return the addition to the canvas that the state of the decoder makes."""
        added: Tensor = self.write(hidden)
        return added.view(-1, *self.canvas_shape)
