"""Inception-v3 from a file of random weights, against torch-fidelity's own network reading the same file."""

import hashlib
from pathlib import Path

import pytest
import torch

from genlab.errors import CheckpointError
from genlab.metrics import inception
from genlab.metrics.features import describe_all
from genlab.metrics.inception import InceptionFeatures, resize_as_tensorflow, weights_file
from genlab.metrics.quality_settings import DOWNLOADED

CPU = torch.device("cpu")


@pytest.fixture(name="weights", scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import inception_v3

    generator = torch.Generator().manual_seed(0)
    state = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    for name, value in state.items():
        if value.dim() == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


@pytest.mark.slow
def test_features_and_logits_are_those_of_torch_fidelity(weights: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    names = ["2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("compat", names, feature_extractor_weights_path=str(weights))
    extractor = InceptionFeatures(weights, device=CPU)
    levels = torch.randint(0, 256, (2, 3, 32, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = describe_all(extractor, [levels / 255])
    for found, expected in zip(ours, theirs(levels), strict=True):
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    grey = describe_all(extractor, [levels[:1, :1] / 255])
    coloured = describe_all(extractor, [levels[:1, :1].expand(-1, 3, -1, -1) / 255])
    torch.testing.assert_close(grey.features, coloured.features)


def test_the_identity_tells_weights_apart(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["fc.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    first, second = InceptionFeatures(weights, device=CPU), InceptionFeatures(tmp_path / "other.pth", device=CPU)
    assert first.identity.startswith("inception ")
    assert first.identity != second.identity


def test_the_file_of_published_values_is_downloaded_once_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, cache = tmp_path / "served.pth", tmp_path / "genlab/inception/served.pth"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(inception, "URL", served.as_uri())
    assert weights_file(str(served)) == served
    with pytest.raises(CheckpointError, match=rf"cannot be downloaded from file:.*; put that file at {cache}, or name"):
        weights_file(DOWNLOADED)
    served.write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match="the file received has sha256"):
        weights_file(DOWNLOADED)
    assert not list(cache.parent.iterdir())
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"other weights").hexdigest())
    assert weights_file(DOWNLOADED) == cache
    served.unlink()
    assert weights_file(DOWNLOADED).read_bytes() == b"other weights"


def test_other_files_are_refused_in_one_line(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"cannot be read \(No such.*; take https://.*/pt_inception-2015-12-05-6726825d\.pth$"
    ):
        InceptionFeatures(tmp_path / "missing.pth", device=CPU)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="does not hold Inception-v3 of 2015: it is of another network; take"):
        InceptionFeatures(tmp_path / "a.pth", device=CPU)
    (tmp_path / "b.pth").write_bytes(b"no file of torch's")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:200])
    for name in ("b.pth", "cut.pth"):
        with pytest.raises(
            CheckpointError, match=r"does not hold .*: it is truncated, or not a file of weights; take [^\n]*$"
        ):
            InceptionFeatures(tmp_path / name, device=CPU)


def test_a_pickled_object_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Bomb(), tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="does not hold"):
        InceptionFeatures(tmp_path / "bomb.pth", device=CPU)
    assert not (tmp_path / "ran").exists()


def test_resizing_takes_pixel_i_at_i_times_the_ratio() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 2, 4)
    expected = torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    torch.testing.assert_close(resize_as_tensorflow(ramp, side=8)[0, 0, 5], expected)
