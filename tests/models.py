"""Small networks of our own, as users would write them."""

from __future__ import annotations

import torch
from torch import nn


class Tiny(nn.Module):
    """Two convolutions with an in-place activation, a pooling, and a linear head: three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.head = nn.Linear(8 * 16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).flatten(1))


class Views(nn.Module):
    """Cuts fall on views: a transpose and a slice cross boundaries."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(12, 10), nn.Linear(8, 6), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).transpose(1, 2)
        z = self.second(y)[:, 2:7, :].transpose(1, 2)
        return self.third(z)


class Stateful(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x) + self.calls


class Branching(nn.Module):
    """Takes a branch that depends on a value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Noise(nn.Module):
    """Never gives the same output twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + torch.rand_like(x)


class Fixed(nn.Module):
    """Mixes samples of a batch, so that no boundary inside it can be batched."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(x).sum(0, keepdim=True))


class Leaky(nn.Module):
    """Differs from its sibling in a constant alone."""

    def __init__(self, slope: float = 0.1) -> None:
        super().__init__()
        self.layer, self.slope = nn.Linear(4, 4), slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(self.layer(x), self.slope)


def steep() -> nn.Module:
    return Leaky(0.9)


class Twice(Leaky):
    """Gives one tensor as two outputs."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layer(x)
        return y, y


class Scalar(Leaky):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).sum()


class Nothing(Leaky):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[:, :0]


def not_a_module() -> int:
    return 3
