"""What a registration minimises: dissimilarity of two images, roughness of a flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops import local_ncc
from .ops.reference import box_sum


def weighted_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of (B, C, H, W, D) over all, weighted by (B, 1, H, W, D) where given."""
    if weight is None:
        return x.mean()
    return (x * weight).sum() / (weight.sum() * x.shape[1])


def lncc_loss(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - mean squared local correlation over 5^3 windows (Avants et al., 2008; paper eq. 10).

    fixed, warped: (B, 1, H, W, D), foreground of about unit intensity. weight: (B, 1, H, W, D).
    """
    return 1 - local_ncc(fixed, warped, window=5, weight=weight)


def mse_loss(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference, for images of one modality and one intensity scale.

    fixed, warped: (B, C, H, W, D). weight: (B, 1, H, W, D).
    """
    return weighted_mean((fixed - warped).square(), weight)


# The twelve pairs of the six face neighbours that are not opposite each other.
FACES = torch.tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
PAIRS = [(i, j) for i in range(6) for j in range(i) if not (FACES[i] + FACES[j] == 0).all()]


def mind_ssc(image: Tensor, dilation: int = 1) -> Tensor:
    """MIND self-similarity context descriptors (Heinrich et al., MICCAI 2013).

    image: (B, 1, H, W, D). dilation: voxels from the centre to its six neighbours.
    Returns (B, 12, H, W, D) in (0, 1]: exp(-D / V), D the squared differences of 3^3 patches around
    two neighbours less the smallest of the twelve, V their mean, held within a thousandfold either
    way of its own mean over the image.
    """
    size = image.shape[2:]
    padded = F.pad(image, [dilation] * 6, mode="replicate")

    def neighbour(face: int) -> Tensor:
        out = padded
        starts = (dilation * (1 + FACES[face])).tolist()
        for axis, (start, length) in enumerate(zip(starts, size, strict=True)):
            out = out.narrow(axis + 2, start, length)
        return out

    shifted = [neighbour(face) for face in range(6)]
    distances = torch.cat([box_sum((shifted[i] - shifted[j]) ** 2, 3) for i, j in PAIRS], 1)
    distances = distances - distances.amin(1, keepdim=True)
    variance = distances.mean(1, keepdim=True)
    mean = variance.mean().clamp_min(torch.finfo(image.dtype).tiny)
    return torch.exp(-distances / variance.clamp(1e-3 * mean, 1e3 * mean))


@dataclass(frozen=True)
class Similarity:
    """A similarity measure for instance optimisation.

    features: what is computed once per image and then warped. loss: (fixed, warped, weight) ->
    scalar to minimise.
    """

    features: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]


SIMILARITIES = {
    "lncc": Similarity(lambda image: image, lncc_loss),
    "mse": Similarity(lambda image: image, mse_loss),
    "mind": Similarity(mind_ssc, mse_loss),
}
