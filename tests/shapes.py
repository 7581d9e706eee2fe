"""Checks the shapes and dtypes that annotations state, and nothing else that they say."""

import beartype
import jaxtyping


def checked(function):
    """Has beartype look at `function`'s arrays; other types are pyright's business."""
    annotations = getattr(function, "__annotations__", {})
    function.__annotations__ = {
        name: hint for name, hint in annotations.items() if _is_of_array(hint)
    }
    return beartype.beartype(function)


def _is_of_array(hint):
    if isinstance(hint, str):  # `Float[Array, "n"]`, as it was written
        return hasattr(jaxtyping, hint.partition("[")[0]) and "[" in hint
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)
