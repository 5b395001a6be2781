"""One training step of DRAW (forward, backward, clip, Adam) against a plain port of the source document, side by side.

    python -m benchmarks.draw_step [--threads 1] [--compile] [--bf16] [--rounds 15] [--setting small|paper|all]

Both run in one process on the same weights and the same noise, and their losses and gradients must agree before
anything is timed. The rounds are interleaved, so that other load on the machine falls on both; the ratio of the medians
of process time (of all threads) is the result. The port writes out the document's listing with its mistakes corrected:
one product for the inputs and one for the state of a cell, one filter bank at a time, noise and KL inside the loop, and
Adam as it comes. Everything that the model of this project does otherwise is an exact transformation of it.
"autograd" is our model without its hand-made gradient of the recurrent weights (genlab.nn.recurrent.Unrolled).
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.models.draw.attention import AttentionBias
from genlab.models.draw.draw import DRAW
from genlab.models.draw.glimpse import GlimpseInputs, Posterior, State
from genlab.types import Batch, ImageSpec

SIDE = 28
BATCH_SIZE = 64
NUM_UNITS = 256
SETTINGS = {
    "small": {"num_glimpses": 10, "read_size": 5, "write_size": 5, "latent_size": 10},
    "paper": {"num_glimpses": 64, "read_size": 2, "write_size": 5, "latent_size": 100},
}
TARGETS = {
    ("small", "eager"): (1.15, 1.25),
    ("paper", "eager"): (1.1, 1.2),
    ("small", "compiled"): (1.6, 1.75),
    ("paper", "compiled"): (1.5, 1.75),
}  # ratios of must and aim


class PlainPort(nn.Module):
    """The source document's listing, line by line, with the mathematics of the paper."""

    def __init__(self, *, num_glimpses: int, read_size: int, write_size: int, latent_size: int) -> None:
        super().__init__()
        self.num_glimpses, self.latent_size = num_glimpses, latent_size
        self.read_size, self.write_size = read_size, write_size
        self.lstm_enc = nn.LSTMCell(2 * read_size**2 + NUM_UNITS, NUM_UNITS)
        self.lstm_dec = nn.LSTMCell(latent_size, NUM_UNITS)
        self.mu = nn.Linear(NUM_UNITS, latent_size)
        self.logsigma = nn.Linear(NUM_UNITS, latent_size)
        self.read_window = nn.Linear(NUM_UNITS, 5)
        self.write_window = nn.Linear(NUM_UNITS, 5)
        self.write_patch = nn.Linear(NUM_UNITS, write_size**2)

    def filterbank(self, parameters: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        gx, gy, log_sigma2, log_delta, log_gamma = parameters.chunk(5, 1)
        gx = (SIDE + 1) / 2 * (gx + 1)
        gy = (SIDE + 1) / 2 * (gy + 1)
        sigma2 = torch.exp(log_sigma2).view(-1, 1, 1)
        delta = (SIDE - 1) / (size - 1) * torch.exp(log_delta)
        grid = torch.arange(1, size + 1, dtype=gx.dtype).view(1, -1)
        mu_x = (gx + (grid - size / 2 - 0.5) * delta).view(-1, size, 1)
        mu_y = (gy + (grid - size / 2 - 0.5) * delta).view(-1, size, 1)
        pixel = torch.arange(1, SIDE + 1, dtype=gx.dtype).view(1, 1, -1)
        fx = torch.exp(-torch.square(pixel - mu_x) / (2 * sigma2))
        fy = torch.exp(-torch.square(pixel - mu_y) / (2 * sigma2))
        fx = fx / torch.clamp(fx.sum(2, keepdim=True), min=1e-8)
        fy = fy / torch.clamp(fy.sum(2, keepdim=True), min=1e-8)
        return fx, fy, torch.exp(log_gamma)

    def read(self, x: Tensor, x_hat: Tensor, h_dec: Tensor) -> Tensor:
        fx, fy, gamma = self.filterbank(self.read_window(h_dec), self.read_size)

        def filter_image(image: Tensor) -> Tensor:
            glimpse = torch.bmm(fy, torch.bmm(image.view(-1, SIDE, SIDE), fx.transpose(1, 2)))
            return glimpse.reshape(-1, self.read_size**2) * gamma

        return torch.cat([filter_image(x), filter_image(x_hat)], 1)

    def write(self, h_dec: Tensor) -> Tensor:
        patch = self.write_patch(h_dec).view(-1, self.write_size, self.write_size)
        fx, fy, gamma = self.filterbank(self.write_window(h_dec), self.write_size)
        written = torch.bmm(fy.transpose(1, 2), torch.bmm(patch, fx))
        return written.reshape(-1, SIDE * SIDE) / gamma

    def unroll(self, x: Tensor, noise: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """Canvas, mu, log sigma, noise and latent of every step."""
        x = x.reshape(-1, SIDE * SIDE)
        canvas = torch.zeros_like(x)
        h_enc, c_enc, h_dec, c_dec = (x.new_zeros(len(x), NUM_UNITS) for _ in range(4))
        for step in range(self.num_glimpses):
            x_hat = x - torch.sigmoid(canvas)
            glimpse = self.read(x, x_hat, h_dec)
            h_enc, c_enc = self.lstm_enc(torch.cat([glimpse, h_dec], 1), (h_enc, c_enc))
            mu, logsigma = self.mu(h_enc), self.logsigma(h_enc)
            e = torch.randn(len(x), self.latent_size) if noise is None else noise[step]
            z = mu + torch.exp(logsigma) * e
            h_dec, c_dec = self.lstm_dec(z, (h_dec, c_dec))
            canvas = canvas + self.write(h_dec)
            yield canvas, mu, logsigma, e, z

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the bound in nats, averaged over the batch."""
        kl = x.new_zeros(len(x))
        for step in self.unroll(x, noise):
            canvas, mu, logsigma, _, _ = step
            kl = kl + 0.5 * (mu.square() + torch.exp(logsigma).square() - 2 * logsigma - 1).sum(1)
        return (bernoulli(canvas, x) + kl).mean()

    def log_weight(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """log p(x, z) / q(z | x) of one draw for each image."""
        ratio = x.new_zeros(len(x))
        for step in self.unroll(x, noise):
            canvas, _, logsigma, e, z = step
            ratio = ratio + (0.5 * e.square() - 0.5 * z.square() + logsigma).sum(1)
        return ratio - bernoulli(canvas, x)


class PlainAutograd(DRAW):
    """Our model with the gradients of the recurrent weights left to autograd: a product for each step."""

    def _unroll(self, images: Tensor, noise: Tensor) -> Iterator[tuple[State, Posterior]]:
        decoder = self.glimpse.decoder
        encoder_weight, encoder_bias = self.glimpse.encoder_weights(images)
        state = self._initial_state(len(images))
        for step_noise in noise:
            inputs = GlimpseInputs(images, step_noise, encoder_weight, encoder_bias, decoder.weight, decoder.bias)
            ((state, posterior, _),) = self.glimpse([inputs], state)
            yield state, posterior


def bernoulli(canvas: Tensor, x: Tensor) -> Tensor:
    x = x.reshape(-1, SIDE * SIDE)
    return nn.functional.binary_cross_entropy_with_logits(canvas, x, reduction="none").sum(1)


def build(setting: dict[str, int], kind: type[DRAW] = DRAW) -> DRAW:
    """Our model, starting where the document starts: from zeros."""
    start = AttentionBias(log_variance=0.0, log_stride=0.0, log_gamma=0.0)
    spec = ImageSpec(channels=1, height=SIDE, width=SIDE, num_levels=2, num_classes=0)
    return kind(
        spec,
        num_units=NUM_UNITS,
        read_bias=start,
        write_bias=start,
        forget_bias=0.0,
        learned_states=False,
        initial_canvas="zero",
        observation=None,
        **setting,
    )


@torch.no_grad()
def copy_weights(model: DRAW, port: PlainPort) -> None:
    """Give the port the weights of the model, in the order in which its layers hold them."""
    glimpse = model.glimpse
    for cell, target, num_inputs in (
        (glimpse.encoder, port.lstm_enc, 2 * port.read_size**2 + NUM_UNITS),
        (glimpse.decoder, port.lstm_dec, port.latent_size),
    ):
        input_gate, forget_gate, output_gate, candidate = cell.weight.chunk(4)
        weight = torch.cat((input_gate, forget_gate, candidate, output_gate))
        target.weight_ih.copy_(weight[:, :num_inputs])
        target.weight_hh.copy_(weight[:, num_inputs:])
        target.bias_ih.zero_()  # the forget bias is 0 here, and so are all others of ours
        target.bias_hh.zero_()
    write = glimpse.write.patch_and_parameters
    for source_weight, source_bias, layers in (
        (glimpse.posterior.weight, glimpse.posterior.bias, (port.mu, port.logsigma)),
        (write.weight, write.bias, (port.write_patch, port.write_window)),
        (glimpse.read.parameters_of.weight, glimpse.read.parameters_of.bias, (port.read_window,)),
    ):
        sizes = [layer.out_features for layer in layers]
        for layer, weight, bias in zip(layers, source_weight.split(sizes), source_bias.split(sizes), strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def require_agreement(model: DRAW, port: PlainPort, batch: Batch) -> None:
    """The same loss and the same gradients of the recurrent weights, from the same weights and noise."""
    torch.manual_seed(1)
    noise = torch.randn(model.num_glimpses, BATCH_SIZE, model.latent_size)
    theirs = port(batch.images, noise)
    theirs.backward()
    torch.manual_seed(1)
    ours = model.loss(batch).value
    ours.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)
    for cell, target in ((model.glimpse.encoder, port.lstm_enc), (model.glimpse.decoder, port.lstm_dec)):
        torch.testing.assert_close(
            cell.weight.grad[:, -NUM_UNITS:].norm(), target.weight_hh.grad.norm(), rtol=1e-3, atol=0
        )
    model.zero_grad()
    port.zero_grad()


def training_step(
    loss: Callable[[], Tensor], parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()

    return step


def measure(name: str, setting: dict[str, int], *, rounds: int, compiled: bool, bf16: bool) -> None:
    torch.manual_seed(0)
    model, plain, port = build(setting), build(setting, PlainAutograd), PlainPort(**setting)
    plain.load_state_dict(model.state_dict())
    copy_weights(model, port)
    images = (torch.rand(BATCH_SIZE, 1, SIDE, SIDE) < 0.2).float()
    batch = Batch(images=images, labels=torch.full((BATCH_SIZE,), -1))
    for own in (model, plain):
        require_agreement(own, port, batch)
        if compiled:
            for module in own.compilable():
                module.compile()
            require_agreement(own, port, batch)

    adam = {"lr": 1e-4, "betas": (0.5, 0.999)}

    def step_of(own: DRAW) -> Callable[[], None]:
        def loss() -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                return own.loss(batch).value

        parameters = list(own.parameters())
        return training_step(loss, parameters, torch.optim.Adam(parameters, fused=True, **adam))

    port_parameters = list(port.parameters())
    steps = {
        "plain port": training_step(lambda: port(images), port_parameters, torch.optim.Adam(port_parameters, **adam)),
        "genlab": step_of(model),
        "autograd": step_of(plain),
    }
    options = " ".join(["compiled"] * compiled + ["bf16"] * bf16) or "eager"
    medians = median_seconds(steps, rounds=rounds, warm_up=2)
    report(f"{name} {options}", medians)
    if (name, options) in TARGETS:
        keep_medians(f"DRAW step, T={setting['num_glimpses']}, {options}", medians, *TARGETS[name, options])


def report(title: str, medians: dict[str, float]) -> None:
    """One line: medians, and the ratio of the first to each of the others."""
    base, *others = medians
    line = f"{title:16} {base} {1e3 * medians[base]:.1f} ms"
    for name in others:
        line += f"; {name} {1e3 * medians[name]:.1f} ms, ratio {medians[base] / medians[name]:.2f}"
    print(line)


def keep_medians(work: str, medians: dict[str, float], must: float, aim: float | None = None) -> None:
    """A row of the table, of the first two ways."""
    baseline, ours = [*medians.values()][:2]
    keep_row(work, baseline, ours, must=must, aim=aim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile the glimpses of our model")
    parser.add_argument("--bf16", action="store_true", help="run our model under bfloat16 autocast")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--setting", choices=[*SETTINGS, "all"], default="all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, setting in SETTINGS.items():
        if arguments.setting in (name, "all"):
            measure(name, setting, rounds=arguments.rounds, compiled=arguments.compile, bf16=arguments.bf16)


if __name__ == "__main__":
    main()
