"""The network that stands for the larger ones of the documents: eight layers that take a millisecond."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    """Six convolutions, then two linear layers: eight layers."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 8, 8, 8, 8, 8, 8]
        steps = [1, 2, 1, 2, 2, 2]
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, step, 1), nn.ReLU())
                for before, after, step in zip(widths, widths[1:], steps, strict=False)
            )
        )
        self.middle, self.head = nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.features(x).flatten(1)).relu())
