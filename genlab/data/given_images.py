"""Pictures of the user, read like the data of a run, so that their likelihoods are comparable with those of the run.

If the run's data were pictures in files (`dataset=folder`), its own rules turn these into images. Elsewhere a file
is refused when that would take scaling or lose its colours, and a likelihood would be of another picture than the file.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from genlab.data.containers import RefusedImage
from genlab.data.dataset import Binarization, Dataset
from genlab.data.decoding import PILLOW_MAX_PIXELS, PictureRules, bombs_refused, decode
from genlab.data.folder import folder
from genlab.data.image_files import scan
from genlab.data.store import Store
from genlab.errors import ConfigurationError, DataError
from genlab.printing import printable
from genlab.types import UNLABELLED, ImageSpec

THRESHOLD = 0.5
"""Grey value at which files are binarised for a run whose data have no threshold."""
_MAX_REASONS_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The rules that turn a file into an image of a run.

    Attributes:
        spec: The run's images.
        rules: Rules by which every file is decoded.
        refuses_colour: True if a file must be grey already. It is decoded in colour, to see that.
        binarization: Of the run's data.
        threshold: Smallest grey value that becomes 1; None where the run's images are not binary.
    """

    spec: ImageSpec
    rules: PictureRules
    refuses_colour: bool
    binarization: Binarization
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class GivenImages:
    """Files and their images.

    Attributes:
        names: Of the files, relative to their folder.
        dataset: Their images in the order of the files, all of them in the training split.
        account: One line: what was done to them.
        num_found: Number of files in the folder, of which these are the first.
    """

    names: Sequence[str]
    dataset: Dataset
    account: str
    num_found: int


def reading_of(node: Mapping[str, Any], spec: ImageSpec) -> Reading:
    """Return the rules that turn a user's files into images of a run.

    Args:
        node: The run's ``dataset``.
        spec: Properties of the images of that data set.

    Raises:
        ConfigurationError: The run's images have a form that no file is turned into.
    """
    if spec.channels not in (1, 3):
        raise ConfigurationError(
            f"images must be null for this run: files have 1 or 3 channels, and its images are {_form(spec)}"
        )
    is_folder = node["_target_"] == f"{folder.__module__}.{folder.__qualname__}"
    if is_folder:
        values = {field.name: node[field.name] for field in fields(PictureRules)}
        rules = PictureRules(**(values | {"size": (spec.height, spec.width)}))
    else:
        rules = PictureRules(
            size=(spec.height, spec.width), crop="none", channels=3, background=255, max_pixels=PILLOW_MAX_PIXELS
        )
    binarization: Binarization = node.get("binarization", "fixed" if spec.num_levels == 2 else "none")
    own_threshold = node["threshold"] if binarization == "threshold" else THRESHOLD
    return Reading(
        spec=spec,
        rules=rules,
        refuses_colour=not is_folder and spec.channels == 1,
        binarization=binarization,
        threshold=own_threshold if spec.num_levels == 2 else None,
    )


def read_images(path: Path, reading: Reading, *, key: str = "images", most: int | None = None) -> GivenImages:
    """Read a picture, or the PNG, JPEG and WebP files below a folder, sorted by name.

    Args:
        path: The picture or the folder.
        reading: Rules of the run.
        key: The setting that named it, for the errors.
        most: Read only so many files, the first ones; None reads all.

    Raises:
        DataError: There is no such file or folder, it holds no picture, or files that cannot be used.
    """
    if path.is_file():
        top, found = path.parent, [path.name]
    elif path.exists():
        top, found = path, [file.name for file in scan(path, key=key)]
    else:
        raise DataError(f"{key} must be a picture or a folder of pictures, and {printable(str(path))} does not exist")
    names = found[:most]
    levels, num_animated = _decode_all(top, names, reading)
    num_levels, store = 256, levels
    if reading.threshold is None and reading.spec.num_levels != 256:
        num_levels = reading.spec.num_levels
        store = levels.float().mul(num_levels - 1).div(255).round().byte()
    unlabelled = torch.full((len(names),), UNLABELLED)
    none = Store(store[:0], unlabelled[:0])
    dataset = Dataset(
        name="given images",
        stores={"train": Store(store, unlabelled), "validation": none, "test": none},
        num_levels=num_levels,
        class_names=(),
        binarization="none" if reading.threshold is None else "threshold",
        threshold=reading.threshold,
        source=printable(path.name),
    )
    account = _account(levels, num_animated, reading)
    return GivenImages(names=names, dataset=dataset, account=account, num_found=len(found))


def _decode_all(top: Path, names: Sequence[str], reading: Reading) -> tuple[UInt8[Tensor, "N C H W"], int]:
    """Return the levels 0 .. 255 of all files, and the number of files with more than one picture."""
    shape = (reading.rules.channels, *reading.rules.sides)
    levels, num_animated = [], 0
    refused = defaultdict[str, list[str]](list)  # names by reason
    with bombs_refused():
        for name in tqdm(names, desc="decoding", unit="image", leave=False, disable=None):
            try:
                picture = decode(top / name, reading.rules)
                image = torch.frombuffer(bytearray(picture.levels), dtype=torch.uint8).view(shape)
                levels.append(_without_colour(image) if reading.refuses_colour else image)
            except RefusedImage as refusal:
                refused[str(refusal)].append(name)
            else:
                num_animated += picture.num_frames > 1
    if refused:
        reasons = [
            f"{printable(first)} {reason}" + (f" (and {len(others)} more)" if others else "")
            for reason, (first, *others) in refused.items()
        ]
        more = len(reasons) - _MAX_REASONS_LISTED
        listed = "; ".join(reasons[:_MAX_REASONS_LISTED]) + (f"; and {more} more reasons" if more > 0 else "")
        raise DataError(
            f"{len(names) - len(levels)} of {len(names)} files in {printable(str(top))} cannot be read as images of "
            f"the run ({_form(reading.spec)}): {listed}"
        )
    return torch.stack(levels), num_animated


def _without_colour(image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "1 H W"]:
    if not (image == image[:1]).all():
        raise RefusedImage("is in colour")
    return image[:1]


def _form(spec: ImageSpec) -> str:
    kind = {1: "grey", 3: "in colour"}.get(spec.channels, f"of {spec.channels} channels")
    return f"{spec.height}x{spec.width}, {kind}"


def _account(levels: UInt8[Tensor, "N C H W"], num_animated: int, reading: Reading) -> str:
    spec, plural = reading.spec, "" if len(levels) == 1 else "s"
    account = f"{len(levels):,} given image{plural}, {_form(spec)}"
    if spec.channels == 3:
        num_grey = int((levels == levels[:, :1]).flatten(1).all(1).sum())
        account += f" ({num_grey:,} from grey)" if num_grey else ""
    if reading.threshold is not None:
        num_binary = int(((levels == 0) | (levels == 255)).flatten(1).all(1).sum())
        of_the_run = {
            "threshold": "as the run's data are",
            "stochastic": "where the run's data are binarised stochastically",
        }.get(reading.binarization, "where the run's data are binary in their files")
        account += f", binarised at grey value {reading.threshold} {of_the_run} (binary already: {num_binary:,})"
    elif spec.num_levels == 256:
        account += ", 256 levels"
    else:
        account += f", 256 levels rounded to {spec.num_levels}"
    return account + (f"; of {num_animated:,} animated files the first frame" if num_animated else "")
