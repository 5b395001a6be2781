"""A compiled GAN with a gradient penalty against an eager one: ``python -m tests.models.gan.compiled_wgan_gp``."""

import torch

from genlab.models.gan.objectives import Wasserstein
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty
from tests.models.gan.tiny import make_gan
from tests.models.tiny import make_batch


def main() -> None:
    torch.manual_seed(0)
    model = make_gan(None, GradientPenalty(weight=10.0), objective=Wasserstein())
    batch = make_batch(model.spec, 4)

    def measure() -> list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]]:
        results = []
        for phase in model.phases():
            torch.manual_seed(5)
            loss = phase.loss(batch).value
            parameters = [parameter for module in phase.modules for parameter in module.parameters()]
            results.append((loss.detach(), torch.autograd.grad(loss, parameters)))
        return results

    expected = measure()
    for module in model.compilable():
        module.compile()
    torch.testing.assert_close(measure(), expected, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main()
