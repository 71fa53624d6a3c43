"""Short binary codes of fc7's activations by an auto-encoder, the extension that Sec. 6.1 suggests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro.data.sampling import torch_seed

BITS = 64  # of a code: one machine word
BATCH = 128
# The paper does not describe an auto-encoder: these are ours.
EPOCHS, HIDDEN, LR = 20, 512, 1e-3
CODE_NOISE = 1.0  # standard deviation of the noise before the code layer's sigmoids


@dataclass(frozen=True)
class Coder:
    """The encoding half of an auto-encoder.

    Attributes:
        mean: mean of the activations that it was trained on, [D].
        scale: their standard deviation over all units.
        encoder: standardized activations [N, D] to the inputs of the code layer's sigmoids, [N, BITS].
        thresholds: the medians of these, [BITS], so that each bit is set for half of the images.
    """

    mean: Tensor
    scale: Tensor
    encoder: nn.Module
    thresholds: Tensor

    def standardize(self, activations: Tensor) -> Tensor:
        """Shift and scale activations [N, D] to mean 0 and unit size, which float16 suits; nearness is unchanged."""
        return (activations - self.mean) / self.scale

    @torch.inference_mode()
    def codes(self, activations: Tensor) -> np.ndarray:
        """Return the codes of activations [N, D] as uint64 [N]."""
        bits = self.encoder(self.standardize(activations)) > self.thresholds
        return np.packbits(bits.numpy(), axis=1).view(np.uint64)[:, 0]


def fit_coder(activations: Tensor) -> Coder:
    """Train an auto-encoder on activations [N, D], without labels, and return its encoder.

    Noise before the code layer's sigmoids drives them towards 0 or 1, so that rounding them loses little.
    """
    generator = torch.Generator().manual_seed(torch_seed(0))
    mean, scale = activations.mean(0), activations.std().clamp_min(1e-6)
    inputs = (activations - mean) / scale
    width = inputs.shape[1]
    encoder = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, BITS))
    decoder = nn.Sequential(nn.Linear(BITS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    _initialise(parameters, generator)
    optimizer = torch.optim.Adam(parameters, lr=LR)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
            code = encoder(inputs[rows])
            noise = torch.empty_like(code).normal_(0, CODE_NOISE, generator=generator)
            loss = nn.functional.mse_loss(decoder(torch.sigmoid(code + noise)), inputs[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.inference_mode():
        return Coder(mean, scale, encoder.eval(), encoder(inputs).median(0).values)


@torch.no_grad()
def _initialise(parameters: list[nn.Parameter], generator: torch.Generator) -> None:
    """Draw weights with standard deviation 1/√(inputs), and set biases to 0."""
    for parameter in parameters:
        if parameter.ndim > 1:
            parameter.normal_(0, 1 / math.sqrt(parameter.shape[1]), generator=generator)
        else:
            parameter.zero_()
