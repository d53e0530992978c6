"""Loss functions: dissimilarity of two images or label maps, folding of a flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..ops import local_ncc, mutual_information, warp
from ..ops.reference import STABILISER, box_sum, local_moments
from ..transforms.jacobian import forward_difference, triple_product

SEARCH_WINDOW = 3  # of local correlation in instance optimisation
LABELS_AT_ONCE = 8  # one-hot volumes in memory at a time


def weighted_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of (B, C, H, W, D) over all elements, weighted by (B, 1, H, W, D) if given."""
    if weight is None:
        return x.mean()
    return (x * weight).sum() / (weight.sum() * x.shape[1])


def lncc_loss(
    fixed: Tensor,
    warped: Tensor,
    weight: Tensor | None = None,
    window: int = 5,
    squared: bool = True,
) -> Tensor:
    """1 - mean local correlation over window^3 windows (Avants et al., 2008; paper eq. 10).

    fixed, warped: (B, 1, H, W, D), foreground of about unit intensity. weight: (B, 1, H, W, D).
    squared: independent of the sign, as in the published network's training; else
    cross / sqrt(variances) as in the paper, in [-1, 1].
    """
    if squared:
        return 1 - local_ncc(fixed, warped, window=window, weight=weight)
    cross, product = local_moments(fixed, warped, window)
    return 1 - weighted_mean(cross / (product + STABILISER).sqrt(), weight)


def mse_loss(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference, for images of one modality and one intensity scale.

    fixed, warped: (B, C, H, W, D). weight: (B, 1, H, W, D).
    """
    return weighted_mean((fixed - warped).square(), weight)


MOST_BINS, LEAST_BINS = 32, 6  # of each image's intensities
VOXELS_PER_BIN = 64  # at least, in the mean over a joint histogram


SHADE = 12  # widths of the Gaussian that shading is smooth over, in the longest side of a grid
ROUNDS = 4  # of estimating the shading, each from what the one before has left
MOST_SHADE = 3.0  # times brighter or darker
LEAST_SHOWN = 1e-3  # of a smoothed image: where there is less, no shading is seen


def with_foreground(fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Two images, without the moving one's shading, each beside where it is above 0.

    fixed, moving: (B, 1, H, W, D), 0 in the background. Returns (B, 2, H, W, D) each. An image and
    its foreground, resampled together, say what intensity a voxel at the border has without the
    background.
    """
    pair = fixed, unshaded(fixed, moving)
    first, second = (torch.cat([x, (x > 0).to(x)], 1) for x in pair)
    return first, second


@torch.no_grad()
def unshaded(fixed: Tensor, moving: Tensor) -> Tensor:
    """The moving image over its shading relative to the fixed one; see `with_foreground`.

    The shading is the smoothed image over the smoothed mean that its intensity has where the fixed
    image is as bright. Smoothed over a wide Gaussian, neither depends much on the alignment.
    """
    both = ((fixed > 0) & (moving > 0)).to(fixed)
    window = 2 * (max(fixed.shape[2:]) // SHADE) + 1  # three boxes make a Gaussian of half of it
    level = fixed.clamp(0, 1) * (MOST_BINS - 1)
    nearest = level.round().long().flatten()
    first = level.floor().clamp(max=MOST_BINS - 2)
    rest, below = level - first, first.long()
    none = fixed.new_zeros(MOST_BINS)
    count = none.index_add(0, nearest, both.flatten()).clamp_min(1)

    def shade(image: Tensor) -> Tensor:
        shown = both * image
        mean = none.index_add(0, nearest, shown.flatten()) / count
        expected = both * torch.lerp(mean[below], mean[below + 1], rest)
        for _ in range(3):
            shown, expected = (box_sum(x, window) / window**3 for x in (shown, expected))
        return torch.where(expected > LEAST_SHOWN, shown / expected.clamp_min(LEAST_SHOWN), 1)

    own = shade(fixed)  # what bins of intensities make of no shading
    for _ in range(ROUNDS):
        moving = moving / (shade(moving) / own).clamp(1 / MOST_SHADE, MOST_SHADE)
    return moving


def mi_loss(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - mutual information of what both images show + mean squared difference of foregrounds.

    In a voxel that the background shares, the intensity is that of its foreground: between bright
    tissue and a dark background would else be all that lies between, and inverted images would
    agree in none of it. The information, in nats, counts by the share of voxels that both show.
    fixed, warped: (B, 2, H, W, D), from `with_foreground`. weight: (B, 1, H, W, D).
    """
    images, shown = zip(*(x.chunk(2, 1) for x in (fixed, warped)), strict=True)
    first, second = (x / s.clamp_min(1e-3) for x, s in zip(images, shown, strict=True))
    both = (shown[0] * shown[1]).detach().clamp_min(1e-6)  # no sum is 0
    bins = min(MOST_BINS, max(LEAST_BINS, math.isqrt(fixed[0, 0].numel() // VOXELS_PER_BIN)))
    counts = both if weight is None else both * weight
    known = weighted_mean(both, weight) * mutual_information(first, second, bins, counts)
    return 1 - known + mse_loss(shown[0], shown[1], weight)


# The twelve pairs of the six face neighbours that are not opposite each other.
FACES = torch.tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
PAIRS = [(i, j) for i in range(6) for j in range(i) if not (FACES[i] + FACES[j] == 0).all()]


def mind_ssc(image: Tensor, dilation: int = 1) -> Tensor:
    """MIND self-similarity context descriptors (Heinrich et al., MICCAI 2013).

    image: (B, 1, H, W, D). dilation: voxels from the centre to its six neighbours.
    Returns (B, 12, H, W, D) in (0, 1]: exp(-D / V), where D is the squared differences of 3^3
    patches around two neighbours minus the smallest of the twelve, and V their mean, clipped to
    1/1000 to 1000 times its own mean over the image.
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
    mean = variance.mean((1, 2, 3, 4), keepdim=True).clamp_min(torch.finfo(image.dtype).tiny)
    return torch.exp(-distances / variance.clamp(1e-3 * mean, 1e3 * mean))


def dice_loss(fixed_labels: Tensor, moving_labels: Tensor, flow: Tensor) -> Tensor:
    """1 - mean soft Dice of the fixed labels and the warped moving labels.

    fixed_labels, moving_labels: (B, 1, H, W, D) integers, 0 is ignored. flow: (B, 3, H, W, D) in
    voxels. The mean is over the labels that occur in either map of a pair, then over pairs; a pair
    without labels adds 0.
    """
    names = torch.unique(torch.cat([fixed_labels, moving_labels]))
    score = partial(checkpoint, soft_dice, use_reentrant=False, preserve_rng_state=False)
    chunks = names[names != 0].split(LABELS_AT_ONCE)
    parts = [score(fixed_labels, moving_labels, flow, chunk) for chunk in chunks]
    scores, present = (torch.cat(x, 1) for x in zip(*parts, strict=True))
    means = ((1 - scores) * present).sum(1) / present.sum(1).clamp_min(1)
    return means.mean()


def soft_dice(
    fixed_labels: Tensor, moving_labels: Tensor, flow: Tensor, names: Tensor
) -> tuple[Tensor, Tensor]:
    """Dice of each of N labels, (B, N), and 1 for labels that occur in either map."""
    fixed, moving = (
        (x == names[:, None, None, None]).to(flow) for x in (fixed_labels, moving_labels)
    )
    warped = warp(moving, flow)
    space = (2, 3, 4)
    size = fixed.sum(space)
    score = 2 * (fixed * warped).sum(space) / (size + warped.sum(space)).clamp_min(1e-6)
    return score, (size + moving.sum(space) > 0).to(flow)


def folding_loss(flow: Tensor) -> Tensor:
    """Mean of max(0, -det) of the map p + flow(p), by forward differences without the last plane.

    flow: (B, 3, H, W, D) in voxels.
    """
    height, width, depth = (max(n - 1, 1) for n in flow.shape[2:])
    columns = []
    for axis in range(3):
        column = list(forward_difference(flow, axis + 2)[..., :height, :width, :depth].unbind(1))
        column[axis] = column[axis] + 1
        columns.append(column)
    return F.relu(-triple_product(*columns)).mean()


def texture(image: Tensor, noise: float, window: int) -> Tensor:
    """How much each window of (B, 1, H, W, D) exceeds noise: 0 for a flat window, up to 1.

    v^2 / (v^2 + n^2) with v the variance in the window and n = noise^2, noise a standard deviation.
    """
    count = window**3
    total, squares = box_sum(image, window), box_sum(image * image, window)
    contrast = ((squares / count - (total / count).square()).clamp_min(0) / noise**2).square()
    return contrast / (contrast + 1)


def as_they_are(fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Two images."""
    return fixed, moving


@dataclass(frozen=True)
class Similarity:
    """A similarity measure for training and for instance optimisation.

    channels: made of both images at full resolution. features: made of an image's channels at
    each resolution and then warped. loss: (fixed, warped, weight) -> scalar to minimise, also what
    a report states. searched: the same, for instance optimisation; None: `loss`. scale: the range
    of the loss between images that do not match. texture:
    (features, noise) -> (B, 1, H, W, D), high where the features exceed noise; None: 1 everywhere.
    """

    features: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    searched: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None
    scale: float = 1.0
    texture: Callable[[Tensor, float], Tensor] | None = None
    channels: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = as_they_are


SIMILARITIES = {
    "lncc": Similarity(
        lambda image: image,
        lncc_loss,
        searched=partial(lncc_loss, window=SEARCH_WINDOW),
        texture=partial(texture, window=SEARCH_WINDOW),
    ),
    "mse": Similarity(lambda image: image, mse_loss, scale=0.1),
    "mind": Similarity(mind_ssc, mse_loss),
    "mi": Similarity(lambda image: image, mi_loss, channels=with_foreground),
}
