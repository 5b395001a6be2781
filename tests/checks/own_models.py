"""Models of no class of genlab but the interface, right and with one mistake each: a VAE, a causal model, a GAN."""

import math
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

from genlab.functional import importance_weighted_nll
from genlab.measures import Measure, negative_log_likelihood
from genlab.models.base import GenerativeModel, Model
from genlab.models.capabilities import Latent
from genlab.types import Batch, ImageSpec, Loss, Phase
from tests.training.conftest import TinyGAN


class VAE(GenerativeModel):
    """One linear layer a side, binary images."""

    selection_measure = "negative_elbo_nats"
    kl_measure = "kl_nats"
    measures = MappingProxyType(
        {
            "negative_elbo_nats": negative_log_likelihood("upper bound"),
            "kl_nats": Measure(unit="nats/image", kind="part of a bound", direction="neither"),
            "weighted_nats": Measure(
                unit="nats/image", kind="upper bound", direction="lower", is_importance_weighted=True
            ),
        }
    )

    def __init__(self, spec: ImageSpec, *, latent_size: int = 3) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        self.latent_size = latent_size
        self.encoder = nn.Linear(math.prod(self.shape), 2 * latent_size)
        self.decoder = nn.Linear(latent_size, math.prod(self.shape))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, log deviation and a draw."""
        mean, log_std = self.encoder(x).chunk(2, 1)
        return mean, log_std, mean + log_std.exp() * self.noise(mean)

    def noise(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)

    def kl(self, mean: Tensor, log_std: Tensor) -> Tensor:
        return (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum(1)

    def reconstruction(self, x: Tensor, value: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.decoder(value), x, reduction="none").sum(1)

    def bound(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1)
        mean, log_std, value = self.encode(x)
        kl = self.kl(mean, log_std)
        return kl + self.reconstruction(x, value), kl

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="model", modules=(self,), loss=self.loss),)

    def loss(self, batch: Batch) -> Loss:
        value = self.bound(batch.images)[0].mean()
        return Loss(value=value, metrics={"negative_elbo_nats": value.detach()})

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        bound, kl = self.bound(batch.images)
        return {"negative_elbo_nats": bound, "kl_nats": kl}

    @torch.no_grad()
    def diagnose(self, batch: Batch, *, num_importance_samples: int) -> dict[str, Tensor]:
        x = batch.images.flatten(1)
        weights = []
        for _ in range(num_importance_samples):
            mean, log_std, value = self.encode(x)
            ratio = Normal(0.0, 1.0).log_prob(value) - Normal(mean, log_std.exp()).log_prob(value)
            weights.append(ratio.sum(1) - self.reconstruction(x, value))
        return self.evaluate(batch) | {"weighted_nats": self.nll_of_weights(torch.stack(weights))}

    def nll_of_weights(self, log_weights: Tensor) -> Tensor:
        return importance_weighted_nll(log_weights)

    @torch.no_grad()
    def latents(self, batch: Batch) -> tuple[Latent, ...]:
        mean, log_std, value = self.encode(batch.images.flatten(1))
        return (Latent(posterior=Normal(mean, log_std.exp()), prior=Normal(0.0, 1.0), value=value),)

    def posterior_layers(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)

    @torch.no_grad()
    def sample(self, num_samples: int, *, labels: Any = None, generator: Any = None) -> Tensor:
        value = torch.randn(num_samples, self.latent_size, generator=generator)
        return torch.sigmoid(self.decoder(value)).view(num_samples, *self.shape)


class WrongConstant(VAE):
    """KL with the constant of one latent, 1/2, for all of them."""

    def kl(self, mean: Tensor, log_std: Tensor) -> Tensor:
        return super().kl(mean, log_std) + (self.latent_size - 1) / 2


class WrongVariance(VAE):
    """KL that takes log sigma for log sigma^2; right at the prior alone."""

    def kl(self, mean: Tensor, log_std: Tensor) -> Tensor:
        return super().kl(mean, 0.5 * log_std)


class VarianceAsDeviation(VAE):
    """Draws with sigma^2 in the place of sigma."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std, _ = super().encode(x)
        return mean, log_std, mean + (2 * log_std).exp() * self.noise(mean)


class NoKL(VAE):
    """A bound without its KL."""

    def bound(self, images: Tensor) -> tuple[Tensor, Tensor]:
        bound, kl = super().bound(images)
        return bound - kl, kl


class SumOfWeights(VAE):
    """The sum of the importance weights for their mean."""

    def nll_of_weights(self, log_weights: Tensor) -> Tensor:
        return -log_weights.logsumexp(0)


class LargestWeight(VAE):
    """The largest of the importance weights for their mean."""

    def nll_of_weights(self, log_weights: Tensor) -> Tensor:
        return -log_weights.amax(0)


class SignsForNoise(VAE):
    """Noise of the right mean and variance, but of plus and minus one."""

    def noise(self, like: Tensor) -> Tensor:
        return super().noise(like).sign()


class DecodesTheMean(VAE):
    """A bound whose decoder reads the posterior's mean."""

    def bound(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1)
        mean, log_std, _ = self.encode(x)
        kl = self.kl(mean, log_std)
        return kl + self.reconstruction(x, mean), kl


class VAEOfClasses(VAE):
    """One latent, of three classes."""

    measures = MappingProxyType({name: VAE.measures[name] for name in ("negative_elbo_nats", "kl_nats")})

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.encoder = nn.Linear(math.prod(self.shape), self.latent_size)

    def posterior(self, images: Tensor) -> Categorical:
        return Categorical(logits=self.encoder(images.flatten(1)))

    def bound(self, images: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.posterior(images)
        kl = kl_divergence(posterior, self.prior())
        value = F.one_hot(posterior.sample(), self.latent_size).float()
        return kl + self.reconstruction(images.flatten(1), value), kl

    @torch.no_grad()
    def diagnose(self, batch: Batch, *, num_importance_samples: int) -> dict[str, Tensor]:
        return self.evaluate(batch)

    def prior(self) -> Categorical:
        return Categorical(logits=torch.zeros(self.latent_size))

    @torch.no_grad()
    def latents(self, batch: Batch) -> tuple[Latent, ...]:
        posterior = self.posterior(batch.images)
        return (Latent(posterior=posterior, prior=self.prior(), value=posterior.sample()),)


class PlainVAE(GenerativeModel):
    """The bound of a VAE with many latents, which tells no check of its KL."""

    measures = MappingProxyType({"negative_elbo_nats": negative_log_likelihood("upper bound")})
    sign = 1

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.inner = VAE(spec, latent_size=64)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="model", modules=(self,), loss=self.inner.loss),)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        bound, kl = self.inner.bound(batch.images)
        return {"negative_elbo_nats": bound + (self.sign - 1) * kl}

    def sample(self, num_samples: int, *, labels: Any = None, generator: Any = None) -> Tensor:
        return self.inner.sample(num_samples, generator=generator)


class MinusKL(PlainVAE):
    """The KL with the wrong sign."""

    sign = -1


class SharedNoise(VAE):
    """One number for all latents of an image."""

    def noise(self, like: Tensor) -> Tensor:
        return super().noise(like[:, :1]).expand_as(like)


class MixesImages(VAE):
    """A KL averaged over the batch."""

    def kl(self, mean: Tensor, log_std: Tensor) -> Tensor:
        kl = super().kl(mean, log_std)
        return kl.mean().expand_as(kl)


class TwoOwners(VAE):
    """Two phases, of which the second trains the encoder, too."""

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="encoder", modules=(self.encoder,), loss=self.loss),
            Phase(name="model", modules=(self,), loss=self.loss),
        )


class Forgetful(VAE):
    """A weight of the loss that grows with the steps, outside of the state."""

    num_losses = 0

    def loss(self, batch: Batch) -> Loss:
        self.num_losses += 1
        loss = super().loss(batch)
        return Loss(value=loss.value * self.num_losses, metrics=loss.metrics)


class MaskedLinear(Model):
    """Logistic regression of each binary pixel on those before it."""

    selection_measure = "exact_nats"
    measures = MappingProxyType({"exact_nats": negative_log_likelihood("exact")})
    num_values = 2
    first_hidden = 0
    """Diagonal from which on the weights are masked."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        self.linear = nn.Linear(math.prod(self.shape), math.prod(self.shape))

    def to_symbols(self, images: Tensor) -> Tensor:
        return images.round().long()

    def to_images(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def logits(self, symbols: Tensor, labels: Tensor) -> Tensor:
        channels, height, width = self.shape
        x = symbols.permute(0, 2, 3, 1).flatten(1).float()  # the colours of a pixel one after another
        on = F.linear(x, self.linear.weight.tril(self.first_hidden - 1), self.linear.bias)
        on = on.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return torch.stack((torch.zeros_like(on), on), 2)

    def nll(self, batch: Batch) -> Tensor:
        symbols = self.to_symbols(batch.images)
        logits = self.logits(symbols, batch.labels).transpose(1, 2)
        return F.cross_entropy(logits, symbols, reduction="none").flatten(1).sum(1)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="model", modules=(self,), loss=self.loss),)

    def loss(self, batch: Batch) -> Loss:
        value = self.nll(batch).mean()
        return Loss(value=value, metrics={"exact_nats": value.detach()})

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"exact_nats": self.nll(batch)}


class LeakyLinear(MaskedLinear):
    """Every pixel sees itself."""

    first_hidden = 1


class HalfLikelihood(MaskedLinear):
    """The mean over two pixels in place of the sum."""

    def nll(self, batch: Batch) -> Tensor:
        return super().nll(batch) / 2


class DoubleSoftmax(MaskedLinear):
    """The cross-entropy of probabilities that are taken for logits: those of another distribution than is drawn."""

    def nll(self, batch: Batch) -> Tensor:
        symbols = self.to_symbols(batch.images)
        probabilities = self.logits(symbols, batch.labels).softmax(2).transpose(1, 2)
        return F.cross_entropy(probabilities, symbols, reduction="none").flatten(1).sum(1)


class ScoredGAN(TinyGAN):
    """A GAN whose images are detached in the discriminator's phase, and which declares its scores."""

    score_measure = "score"

    def score_layers(self) -> tuple[nn.Module, ...]:
        return (self.discriminator[-1],)

    def discriminator_loss(self, batch: Batch) -> Loss:
        real = self.discriminator(batch.images.flatten(1))
        fake = self.discriminator(self.fakes(len(batch.images)).detach())
        value = F.softplus(-real).mean() + F.softplus(fake).mean()
        return Loss(value=value, metrics={"adversarial_nats": value.detach()})

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        scores = self.discriminator(batch.images.flatten(1))[:, 0]
        return {"score": scores, "gap_nats": F.softplus(-scores)}


class RoundedGAN(ScoredGAN):
    """Generated images of whole levels, through which no gradient passes."""

    def fakes(self, num: int) -> Tensor:
        return super().fakes(num).round()


class OnePhaseGAN(ScoredGAN):
    """One loss for both networks."""

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="both", modules=(self,), loss=self.discriminator_loss),)
