"""Range checks of constructor arguments, in the one sentence that users read."""

from genlab.types import ImageSpec


def require_between(key: str, value: float | int, low: float | int, high: float | int, *, because: str = "") -> None:
    """Refuse a value outside [low, high]; NaN is outside.

    Args:
        key: Name of the argument as the user typed it.
        value: What the user gave.
        low: Least allowed value.
        high: Greatest allowed value.
        because: What the limits come from, shown in brackets.

    Raises:
        ValueError: The value is outside.
    """
    if not low <= value <= high:
        reason = f" ({because})" if because else ""
        raise ValueError(f"{key} must be between {low:g} and {high:g}{reason}, got {value}")


def require_at_least(key: str, value: float | int, low: float | int) -> None:
    """Refuse a value below `low`, infinity and NaN.

    Raises:
        ValueError: The value is refused.
    """
    if not low <= value < float("inf"):
        raise ValueError(f"{key} must be at least {low:g}, got {value}")


def require_window_size(key: str, size: int | None, spec: ImageSpec) -> None:
    """Refuse an attention window of more filters than the image has pixels; None stands for no window.

    Raises:
        ValueError: The size is outside its range.
    """
    if size is not None:
        require_between(key, size, 1, max(spec.height, spec.width), because="the image size")
