"""Only real images are smoothed, in a whole GAN."""

import pytest
import torch
import torch.nn.functional as F

from genlab.models.gan.objectives import LeastSquares
from genlab.models.gan.techniques.label_smoothing import LabelSmoothing
from tests.models.gan.tiny import make_gan
from tests.models.tiny import make_batch


def test_the_discriminators_loss_has_target_0_9_for_real_and_0_for_generated_images() -> None:
    model = make_gan(None, LabelSmoothing(real_target=0.9))
    batch = make_batch(model.spec, 6)
    torch.manual_seed(1)
    loss = model.phases()[0].loss(batch)
    torch.manual_seed(1)
    measures = model.evaluate(batch)
    expected = F.binary_cross_entropy_with_logits(measures["score_real"], torch.full((6,), 0.9))
    expected += F.binary_cross_entropy_with_logits(measures["score_fake"], torch.zeros(6))
    torch.testing.assert_close(loss.value.detach(), expected)


def test_the_generators_loss_is_unchanged_and_metrics_keep_their_unit() -> None:
    model = make_gan(None, LabelSmoothing(real_target=0.9), objective=LeastSquares())
    batch = make_batch(model.spec, 6)
    torch.manual_seed(1)
    loss = model.phases()[1].loss(batch)
    torch.manual_seed(1)
    scores = model.evaluate(batch)["score_fake"]
    torch.testing.assert_close(loss.metrics["adversarial_squared_score"], 0.5 * ((scores - 1) ** 2).mean())


@pytest.mark.parametrize("target", [0.49, 1.01])
def test_a_target_out_of_range_is_refused_by_its_key(target: float) -> None:
    with pytest.raises(ValueError, match=r"model\.techniques\.label_smoothing\.real_target"):
        LabelSmoothing(real_target=target)
