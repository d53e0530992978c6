"""Images of label maps in random contrasts, with the faults that scans have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...volumes.template import TISSUES
from .noise import Source, smooth_noise

VARIED = 0.15  # most standard deviation of intensities within a label
REGIONAL = 0.1  # and between the regions of a tissue
BLUR = 1.2  # most standard deviation of the blur, in voxels
BIAS = 0.4  # most standard deviation of the bias field's logarithm
GAMMA = 0.3  # standard deviation of the gamma's logarithm
NOISE = 0.06  # most standard deviation of noise
THICKEST = 4  # voxels of a slice, at most
RATHER = 0.25  # probability of thick slices; half of it, of a cut field of view
CUT = 0.15  # most of a side that a field of view lacks


def image_of(source: Source, labels: Tensor, tissues: bool) -> Tensor:
    """(1, 1, H, W, D) float32 in [0, 1], background 0, of a label map of that shape.

    tissues: labels are those of `brain`; half of the images then have about one intensity a
    tissue, as scans do, and not one a label.
    """
    image = filled(source, labels, tissues)
    blur = source.number(0.0, BLUR)
    image = blurred(image, blur)
    bias = smooth_noise(source, 1, labels.shape[2:], max(labels.shape) / 3)
    image = image * torch.exp(bias * source.number(0.0, BIAS))
    image = (image + source.number(0.0, NOISE) * source.normal(*image.shape)).clamp_min(0)
    image = thick_slices(source, image) if source.chance(RATHER) else image
    image = image * (labels > 0)
    top = image.amax().clamp_min(1e-6)
    image = (image / top) ** float(torch.exp(GAMMA * source.normal(1)))
    return cut_view(source, image) if source.chance(RATHER / 2) else image


def filled(source: Source, labels: Tensor, tissues: bool) -> Tensor:
    """Every label with a random intensity that varies within it."""
    count = int(labels.max()) + 1
    means = source.uniform(count, low=0.05)
    if tissues and source.chance(0.5):
        each = torch.arange(count, device=labels.device)
        means = means[: len(TISSUES)][(each - 1) % len(TISSUES)] + REGIONAL * (means - 0.5)
    spread = source.uniform(count, high=VARIED)
    index = labels.long()
    return (means[index] + spread[index] * source.normal(*labels.shape)).clamp_min(0)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Smoothed by a Gaussian of so many voxels."""
    if sigma < 0.2:
        return image
    x = torch.arange(-4, 5, device=image.device, dtype=image.dtype)
    line = torch.exp(-0.5 * (x / sigma) ** 2)
    line = line / line.sum()
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(line)
        pad = [0, 0, 0]
        pad[axis] = len(line) // 2
        image = F.conv3d(image, line.view(shape), padding=pad)
    return image


def thick_slices(source: Source, image: Tensor) -> Tensor:
    """As of slices of several voxels along a random axis, at the size it had."""
    axis, thick = source.whole(0, 2), source.whole(2, THICKEST)
    kernel = [1, 1, 1]
    kernel[axis] = thick
    slices = F.avg_pool3d(image, kernel, ceil_mode=True, count_include_pad=False)
    return F.interpolate(slices, size=image.shape[2:], mode="trilinear", align_corners=False)


def cut_view(source: Source, image: Tensor) -> Tensor:
    """Without some planes at one end of an axis."""
    axis, low = source.whole(2, 4), source.chance(0.5)
    side = image.shape[axis]
    cut = round(source.number(0.0, CUT) * side)
    out = image.clone()
    out.narrow(axis, 0 if low else side - cut, cut).zero_()
    return out
