"""Hidden codes with mutual information with the images (InfoGAN, Chen et al. 2016, arXiv:1606.03657).

The codes are one categorical and some continuous ones, uniform on (-1, 1); a head Q on the discriminator's features
reads them back. The variational lower bound of the mutual information (equation 5) is
I(c; G(z, c)) >= H(c) + E[log Q(c | G(z, c))].

The bound is a term of both phases. Q is trained with the discriminator, whose features it reads, at the discriminator's
learning rate, as in the authors' program; in the generator's phase the bound trains the generator alone.

Dimensions: B batch, N images drawn, L labelled images, F features, E codes as the generator gets them, K categories,
D continuous codes.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from genlab.functional import at_least_float32, bounded, one_hot
from genlab.models.gan.conditioning import Conditioning, Sizes
from genlab.models.gan.discriminator import DiscriminatorOutput
from genlab.models.ranges import require_between, require_count
from genlab.parallel.collectives import draw_rows
from genlab.types import ImageSpec, Loss

# A standard deviation of e^5 for a code in (-1, 1) is no reading at all.
_LARGEST_LOG_STD = 5.0


class CodeHead(nn.Module):
    """The network Q: a hidden layer, then logits of the categorical code and mean and log std of each continuous one.

    Args:
        num_features: F.
        num_hidden: Units of the hidden layer.
        num_categories: K.
        num_continuous: D.
        smallest_std: Lower bound of the standard deviations.
    """

    def __init__(
        self, *, num_features: int, num_hidden: int, num_categories: int, num_continuous: int, smallest_std: float
    ) -> None:
        super().__init__()
        self.smallest_log_std = math.log(smallest_std)
        self.hidden = nn.Sequential(nn.Linear(num_features, num_hidden), nn.BatchNorm1d(num_hidden), nn.LeakyReLU(0.1))
        self.output = nn.Linear(num_hidden, num_categories + 2 * num_continuous)
        self.sizes = [num_categories, num_continuous, num_continuous]

    def forward(
        self, features: Float[Tensor, "B F"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        outputs: Tensor = at_least_float32(self.output(self.hidden(features)))
        logits, mean, log_std = torch.split(outputs, self.sizes, 1)
        return logits, mean, bounded(log_std, self.smallest_log_std, _LARGEST_LOG_STD)


class HiddenCodes(Conditioning):
    """One categorical and some continuous codes, and the bound on their mutual information with the image.

    Args:
        num_categories: K, at least 2.
        num_continuous: D.
        categorical_weight: lambda, of the categorical code's bound; 1 in the paper.
        continuous_weight: The same for the continuous codes; 1 for MNIST (appendix C), and section 6 advises less.
        num_hidden: Units of Q's own hidden layer; 128 in the paper.
        smallest_std: Lower bound of the standard deviations that Q learns for the continuous codes. Near zero, one code
            read precisely outweighs everything else, and classes become points of a curve instead of categories; 1
            leaves squared errors, as in the authors' code.

    Raises:
        ValueError: An argument is out of range.
    """

    reads_single_images = True
    head: CodeHead

    def __init__(
        self,
        *,
        num_categories: int,
        num_continuous: int,
        categorical_weight: float,
        continuous_weight: float,
        num_hidden: int,
        smallest_std: float,
    ) -> None:
        super().__init__()
        require_between("model.conditioning.smallest_std", smallest_std, 1e-3, 100.0)
        require_count("model.conditioning.num_categories", num_categories, 2)
        require_count("model.conditioning.num_continuous", num_continuous, 0)
        require_count("model.conditioning.num_hidden", num_hidden)
        require_between("model.conditioning.categorical_weight", categorical_weight, 0.0, 1e6)
        require_between("model.conditioning.continuous_weight", continuous_weight, 0.0, 1e6)
        self.num_categories = num_categories
        self.num_continuous = num_continuous
        self.categorical_weight = categorical_weight
        self.continuous_weight = continuous_weight
        self.num_hidden = num_hidden
        self.smallest_std = smallest_std

    def sizes(self, spec: ImageSpec) -> Sizes:
        del spec
        return Sizes(num_inputs=self.num_categories + self.num_continuous)

    def build_head(self, num_features: int) -> None:
        self.head = CodeHead(
            num_features=num_features,
            num_hidden=self.num_hidden,
            num_categories=self.num_categories,
            num_continuous=self.num_continuous,
            smallest_std=self.smallest_std,
        )

    def draw(
        self, num: int, *, labels: Int[Tensor, " N"] | None, generator: Generator | None, device: torch.device
    ) -> Float[Tensor, "N E"]:
        del labels
        place = device if generator is None else generator.device
        categories = draw_rows(
            lambda rows: torch.randint(self.num_categories, (rows,), generator=generator, device=place), num
        )
        continuous = draw_rows(
            lambda rows: torch.empty(rows, self.num_continuous, device=place).uniform_(-1, 1, generator=generator), num
        )
        return self.inputs(categories.to(device), continuous.to(device))

    def inputs(self, categories: Int[Tensor, " N"], continuous: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Return the codes as the generator gets them: the category one-hot, then the continuous ones."""
        return torch.cat((one_hot(categories, self.num_categories), continuous), 1)  # (N, K + D)

    def discriminator_term(
        self,
        supervised: DiscriminatorOutput | None,
        labels: Int[Tensor, " L"],
        fake: DiscriminatorOutput,
        inputs: Float[Tensor, "B E"],
    ) -> Loss:
        del supervised, labels
        return self._negative_bound(fake, inputs)

    def generator_term(self, fake: DiscriminatorOutput, inputs: Float[Tensor, "B E"]) -> Loss:
        return self._negative_bound(fake, inputs)

    def _negative_bound(self, fake: DiscriminatorOutput, inputs: Float[Tensor, "B E"]) -> Loss:
        categories, continuous = torch.split(inputs, [self.num_categories, self.num_continuous], 1)
        logits, mean, log_std = self.head(fake.features)
        categorical = math.log(self.num_categories) - F.cross_entropy(logits, categories.argmax(1))
        value = -self.categorical_weight * categorical
        metrics = {"categorical_information_nats": categorical.detach()}
        if self.num_continuous:
            # log N(c; mean, std), summed over the codes; each has entropy log 2.
            log_density = -0.5 * ((continuous - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
            information = self.num_continuous * math.log(2) + log_density.sum(1).mean()
            value = value - self.continuous_weight * information
            metrics["continuous_information_nats"] = information.detach()
        return Loss(value=value, metrics=metrics)

    def read_category(self, features: Float[Tensor, "B F"]) -> Int[Tensor, " B"]:
        """Return the most likely category of each image."""
        logits: Tensor = self.head(features)[0]
        return logits.argmax(1)
