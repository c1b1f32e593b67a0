"""Which device a stage computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    import torch


def pick(name: str, key: str) -> torch.device:
    """The device called `name`; `auto` is a GPU where there is one.

    Args:
        key: of the recipe, for the message.

    Raises:
        RequestError: torch knows no such device, or this machine has none.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise RequestError(f"{key}: {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device
