"""Weights from a file, and those that a random initialisation forgot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from planner.errors import ModelError

_PROGRAMS = (".pt2", ".onnx", ".ts", ".torchscript")


def load_weights(module: nn.Module, file: Path) -> None:
    """Fill ``module`` from a state dict in a .safetensors or a .pt/.pth file; runs no code from it.

    Raises ``ModelError`` for a file that is damaged, holds anything but tensors, or does not fit.
    """
    if not file.is_file():
        raise ModelError(f"--weights: no such file: {file}", "pass none, default, or a weight file")
    if file.suffix in _PROGRAMS:
        problem = f"{file} holds a program, which may run code when it is loaded"
        raise ModelError(problem, "save the weights alone: model.state_dict(), as .safetensors")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes each reader raise as it likes
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        remedy = "a state dict saved as .safetensors, or by torch.save(model.state_dict())"
        raise ModelError(f"{file} is no readable weight file: {reason:.200}", remedy) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{file} holds no state dict", "save model.state_dict(), not the model")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:4]]
        raise ModelError(
            f"{file} does not fit the model: {' '.join(details):.400}", "is it of this architecture?"
        ) from None


def fill_zero_weights(module: nn.Module, seed: int) -> None:
    """Draw the weight matrices that an initialisation left at zero (ViT's head).

    Otherwise the output is zero whatever the input, and comparing outputs would prove nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        if weight.ndim >= 2 and not torch.any(weight):
            with torch.no_grad():
                weight.normal_(std=0.02, generator=generator)
