"""Range checks of constructor arguments, with their error messages."""

from jaxtyping import Float
from torch import Tensor

from genlab.types import ImageSpec

_LEVEL_TOLERANCE = 0.01  # of the distance between two levels; float32 is off by 2e-5 at 256 of them
MAX_GLIMPSES = 1000
"""Largest number of glimpses; memory grows with it, although all share the weights."""


def require_between(key: str, value: float | int, low: float | int, high: float | int, *, because: str = "") -> None:
    """Refuse a value outside [low, high]; NaN is outside.

    Args:
        key: Name of the argument as the user typed it.
        value: Value given by the user.
        low: Least allowed value.
        high: Greatest allowed value.
        because: Reason for the limits, printed in brackets.

    Raises:
        ValueError: The value is outside.
    """
    if not low <= value <= high:
        reason = f" ({because})" if because else ""
        raise ValueError(f"{key} must be between {low:g} and {high:g}{reason}, got {value}")


def require_count(key: str, value: float | int, least: int = 1) -> None:
    """Refuse a value that is not an integer of at least `least`.

    Raises:
        ValueError: The value is refused.
    """
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{key} must be an integer of at least {least}, got {value}")


def require_kernel(key: str, side: int, least: int = 1) -> None:
    """Refuse a side of a kernel that has no centre, or is less than `least`.

    Raises:
        ValueError: The side is refused.
    """
    if side % 2 == 0 or side < least:
        raise ValueError(f"{key} must be odd and at least {least}, got {side}")


def require_num_glimpses(num_glimpses: float | int) -> None:
    """Refuse an invalid number of glimpses.

    Raises:
        ValueError: The value is refused.
    """
    require_count("model.num_glimpses", num_glimpses)
    require_between("model.num_glimpses", num_glimpses, 1, MAX_GLIMPSES)


def require_window_size(key: str, size: float | int | None, spec: ImageSpec) -> None:
    """Refuse an attention window of more filters than the image has pixels; None stands for no window.

    Raises:
        ValueError: The size is no integer, or outside its range.
    """
    if size is None:
        return
    require_between(key, size, 1, max(spec.height, spec.width), because="the image size")
    require_count(key, size)


def require_images(images: Float[Tensor, "B C H W"], spec: ImageSpec) -> None:
    """Refuse images of another size or with values that are no levels, of which a likelihood would mean nothing.

    Raises:
        ValueError: As said. NaN passes: a measure of it is NaN.
    """
    expected = (spec.channels, spec.height, spec.width)
    if tuple(images.shape[1:]) != expected:
        raise ValueError(
            f"images must be of the shape {expected} (channels, height, width), got {tuple(images.shape[1:])}"
        )
    levels = images * (spec.num_levels - 1)
    is_outside = (images < 0) | (images > 1)
    if bool((is_outside | ((levels - levels.round()).abs() > _LEVEL_TOLERANCE)).any()):
        fault = "outside" if bool(is_outside.any()) else "between two levels"
        hint = "; binarise them" if fault != "outside" and spec.num_levels == 2 else ""
        raise ValueError(
            f"images must be in [0, 1], level k of {spec.num_levels} at k / (num_levels - 1), and some values lie "
            f"{fault}{hint}"
        )
