"""The search for the latent of a given image, where the answer is known."""

import pytest
import torch

from genlab.models.gan.conditioning import ClassLabels
from genlab.models.gan.latent import GaussianNoise, UniformNoise
from genlab.sampling.latents import find_latents
from tests.models.gan.tiny import make_gan
from tests.models.tiny import make_spec, randomize


@pytest.mark.parametrize("latent", [UniformNoise(size=3), GaussianNoise(size=3)])
def test_images_of_the_generator_are_found_alone_and_in_company(latent: UniformNoise | GaussianNoise) -> None:
    model = make_gan(latent=latent)
    randomize(model.generator, 0.5)
    images = model.sample(4, generator=torch.Generator().manual_seed(1))
    weights = [parameter.clone() for parameter in model.parameters()]
    found, again, alone = (
        find_latents(model, given, num_steps=60, generator=torch.Generator().manual_seed(2))
        for given in (images, images, images[2:3])
    )
    assert (found.draw_errors > 0.02).all()
    assert (found.errors < 0.3 * found.draw_errors).all()
    assert found.errors.median() < 1e-3
    torch.testing.assert_close(model.eval().render(found.inputs), found.images)
    torch.testing.assert_close((found.images - images).square().flatten(1).mean(1).sqrt(), found.errors)
    assert torch.equal(again.inputs, found.inputs)
    torch.testing.assert_close(alone.inputs[0], found.inputs[2], atol=1e-3, rtol=1e-3)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), weights, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_class_is_given_or_that_of_the_nearest_draw() -> None:
    model = make_gan(make_spec(num_classes=2), conditioning=ClassLabels())
    randomize(model.generator, 0.5)
    images = model.sample(3, labels=torch.tensor([0, 1, 1]))
    found = find_latents(model, images, num_steps=30, label=0, generator=torch.Generator().manual_seed(0))
    assert found.inputs[:, 3:].tolist() == [[1, 0]] * 3
    found = find_latents(model, images, num_steps=30, generator=torch.Generator().manual_seed(0))
    assert (found.errors < found.draw_errors).all()
    assert found.inputs[:, 3:].tolist() == [[1, 0], [0, 1], [0, 1]]
    with pytest.raises(ValueError, match="classes between 0 and 1"):
        find_latents(model, images, num_steps=1, label=2)
    with pytest.raises(ValueError, match="latent_steps must be an integer of at least 1, got 0"):
        find_latents(model, images, num_steps=0)


@pytest.mark.parametrize("latent", [UniformNoise(size=3), GaussianNoise(size=3)])
def test_what_is_found_lies_where_draws_do_although_the_nearest_image_does_not(
    latent: UniformNoise | GaussianNoise,
) -> None:
    model = make_gan(latent=latent)
    randomize(model.generator, 0.5)
    found = find_latents(model, torch.ones(2, 1, 4, 4), num_steps=60)
    torch.testing.assert_close(latent.confine(found.inputs), found.inputs)


def test_noise_out_of_reach_is_brought_back() -> None:
    far = torch.tensor([[9.0, 0.0, -9.0], [0.0, 0.0, 0.0]])
    assert UniformNoise(size=3).confine(far).tolist() == [[1, 0, -1], [0, 0, 0]]
    confined = GaussianNoise(size=3).confine(far)
    torch.testing.assert_close(confined.norm(dim=1), torch.tensor([3 + 3**0.5, 0.0]))
    torch.testing.assert_close(GaussianNoise(size=3).confine(confined), confined)
