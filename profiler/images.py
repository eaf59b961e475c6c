"""Real images as inputs: a folder of the user's, or crops of the photograph that matplotlib ships."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.chain import TensorSpec
from planner.errors import ImageError, MissingDependencyError
from profiler.model import Preparation
from profiler.runner import Array

try:
    from PIL import Image, UnidentifiedImageError
except ImportError as error:
    raise MissingDependencyError("pillow", "reading images", "torch") from error

# What Pillow raises for damaged files: a broken PNG header is a SyntaxError.
_UNREADABLE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Picture:
    """One input image: where it came from, the SHA-256 of its pixels, and the pixels as 8-bit RGB."""

    source: str
    digest: str
    pixels: Image.Image


def folder_files(folder: Path) -> list[Path]:
    """The folder's JPEG and PNG files by name. Raises ``ImageError`` where there is no such folder."""
    if not folder.is_dir():
        raise ImageError(f"no such image folder: {folder}", "pass a folder of JPEG or PNG files")
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)


def open_picture(file: Path) -> Picture:
    """The image in a file. Raises ``ImageError``."""
    try:
        with Image.open(file) as opened:
            pixels = _rgb(opened)
    except _UNREADABLE as error:
        raise ImageError(f"{file}: {error}") from None
    return _picture(str(file), pixels)


def folder_pictures(folder: Path, count: int | None, skipped: list[str]) -> Iterator[Picture]:
    """The folder's JPEG and PNG images by name; unreadable ones are added to ``skipped``.

    Raises ``ImageError`` where there is none.
    """
    found = 0
    for file in folder_files(folder):
        if count is not None and found >= count:
            return
        try:
            picture = open_picture(file)
        except ImageError as error:
            skipped.append(error.message)
            continue
        found += 1
        yield picture
    if not found:
        problem = f"{len(skipped)} unreadable" if skipped else "none there"
        raise ImageError(f"no JPEG or PNG image can be read in {folder}: {problem}", "pass another folder")


def default_pictures(count: int, seed: int = 0) -> Iterator[Picture]:
    """Seeded square crops of the photograph in matplotlib's sample data (Grace Hopper, public domain)."""
    from matplotlib import cbook

    name = "grace_hopper.jpg"
    with Image.open(cbook.get_sample_data(name, asfileobj=False)) as opened:
        photograph = opened.convert("RGB")
    generator = np.random.default_rng(seed)
    short = min(photograph.size)
    for _ in range(count):
        side = int(generator.integers(short // 3, short + 1))
        left = int(generator.integers(0, photograph.width - side + 1))
        top = int(generator.integers(0, photograph.height - side + 1))
        box = (left, top, left + side, top + side)
        yield _picture(f"{name} {box}", photograph.crop(box))


def pictures(folder: Path | None, count: int | None, skipped: list[str]) -> Iterator[Picture]:
    """Images from ``folder``, or the default ones where it is None."""
    return (
        default_pictures(min(count or 20, 20)) if folder is None else folder_pictures(folder, count, skipped)
    )


def prepare(picture: Picture, preparation: Preparation, spec: TensorSpec) -> Array:
    """The image as a model takes it: shape 1 x C x H x W, float32, normalised per channel."""
    pixels = picture.pixels
    scale = preparation.resize / min(pixels.size)
    size = tuple(max(round(extent * scale), 1) for extent in pixels.size)
    resampling = Image.Resampling[preparation.interpolation.upper()]
    pixels = pixels.resize((size[0], size[1]), resampling)
    height, width = preparation.crop
    left, top = (pixels.width - width) // 2, (pixels.height - height) // 2
    pixels = pixels.crop((left, top, left + width, top + height))
    channels = spec.shape[1]
    values = np.asarray(pixels.convert("L") if channels == 1 else pixels, dtype=np.float32) / 255
    values = values.reshape(height, width, channels)
    mean, std = (np.array(each[:channels], np.float32) for each in (preparation.mean, preparation.std))
    values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis]).astype(spec.dtype)


def _rgb(image: Image.Image) -> Image.Image:
    """8 bits per channel; Pillow alone would clip 16-bit grey values, not scale them."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _picture(source: str, pixels: Image.Image) -> Picture:
    return Picture(source, hashlib.sha256(pixels.tobytes()).hexdigest(), pixels)
