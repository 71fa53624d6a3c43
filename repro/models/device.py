"""Which device the nets run on."""

from __future__ import annotations

import torch

from repro.errors import ReproError


def find_device(name: str | None) -> torch.device:
    """The device of that name; without a name a GPU if there is one. Raises ReproError if it is not there."""
    name = name or ("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ReproError(f"no device '{name}' on this machine: --devices cpu always works") from error
    return device
