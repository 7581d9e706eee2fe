"""Checks the shapes and dtypes that annotations state, and nothing else that they say."""

import beartype

# Annotations are strings: these begin with a dtype of jaxtyping.
DTYPES = ("Array[", "Bool[", "Float[", "Int[", "Int32[", "Key[", "Shaped[", "UInt8[")


def checked(function):
    """Has beartype look at `function`'s arrays; other types are pyright's business."""
    annotations = getattr(function, "__annotations__", {})
    function.__annotations__ = {
        name: hint for name, hint in annotations.items() if str(hint).startswith(DTYPES)
    }
    return beartype.beartype(function)
