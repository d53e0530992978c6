"""Every operation in plain PyTorch: the ground truth that each faster path is tested against.

Works in any float dtype on any device, differentiable by autograd. Half-precision features are
computed in float32 and rounded once at the end. Arguments are checked by the public operations,
not here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from .torch_func import NO_JVP, tracing, transforming


def working(x: Tensor) -> Tensor:
    """float64 stays; every narrower type is computed in float32."""
    return x if x.dtype == torch.float64 else x.float()


def warp(image: Tensor, flow: Tensor, mode: str, padding: str) -> Tensor:
    """image(p + flow(p)); image (B, C, h, w, d), flow (B, 3, H, W, D) -> (B, C, H, W, D)."""
    batch, _, *size = flow.shape
    if 0 in (*image.shape, *flow.shape):
        return image.new_zeros(batch, image.shape[1], *size) + 0 * (image.sum() + flow.sum())
    dtype = torch.promote_types(working(image).dtype, working(flow).dtype)
    lines = [torch.arange(n, dtype=dtype, device=flow.device) for n in size]
    lines = [
        line.reshape([-1 if a == axis else 1 for a in range(3)]) for axis, line in enumerate(lines)
    ]
    axes = [flow[:, axis].to(dtype) + line for axis, line in enumerate(lines)]
    return read(image.to(dtype), axes, mode, padding).to(image.dtype)


def read(image: Tensor, axes: list[Tensor], mode: str, padding: str) -> Tensor:
    """The image at points; image (B, C, h, w, d), axes three (B, H, W, D) -> (B, C, H, W, D)."""
    scaled = []
    for axis, (n, position) in enumerate(zip(image.shape[2:], axes, strict=True)):
        if n == 1:  # a second plane gives a one-voxel axis a width to normalise by
            fill = "replicate" if padding == "border" else "constant"
            image = F.pad(image, [0, 0] * (2 - axis) + [0, 1] + [0, 0] * axis, mode=fill)
        last = max(n - 1, 1)
        scaled.append((2 * on_one_side(position, last, mode, padding) - last) / last)
    grid = torch.stack(scaled[::-1], -1)
    if transforming():  # PyTorch's rule for vmap is right for a first axis, as it is now
        image, grid = image * 1, grid * 1
    names = {"trilinear": "bilinear", "nearest": "nearest"}
    try:
        return F.grid_sample(image, grid, names[mode], padding, align_corners=True)
    except NotImplementedError as error:  # forward mode: nothing else is missing
        raise RuntimeError(NO_JVP.format("warp")) from error


def on_one_side(position: Tensor, last: int, mode: str, padding: str) -> Tensor:
    """Positions along an axis up to `last`, such that scaling them to [-1, 1] does no harm.

    Scaling rounds: at a voxel, where interpolation has a kink, the gradient would be of either
    side, and half way between two the nearest either of them. So for a gradient whole positions
    move right by what rounding may come to, and for the nearest voxel all are rounded before.
    NaN counts as before the axis.
    """
    position = torch.where(position > -2, position, -2).clamp(max=last + 2)
    if mode == "nearest":
        return position.round()
    if not (position.requires_grad or transforming()):
        return position
    whole = position == position.floor()
    if padding == "border":
        whole &= position > 0
    return position + whole * (1.25 * torch.finfo(position.dtype).eps * (last + 1))


def invert(
    field: Tensor,
    goal: Tensor,
    start: Tensor,
    step: Sequence[float],
    metric: Sequence[float],
    tolerance: float,
    shrink: float,
    patience: int,
) -> tuple[Tensor, Tensor]:
    """The flow u with u + field(p + u) = goal, and where it was found; see `ops.invert`."""

    def turned(matrix: Sequence[float], vectors: Tensor) -> Tensor:
        return torch.einsum("ac,bc...->ba...", vectors.new_tensor(matrix).view(3, 3), vectors)

    flow, best, least = start, start, torch.full_like(goal[:, 0], torch.inf)
    misses = torch.zeros_like(least)
    while True:
        error = warp(field, flow, "trilinear", "border") + flow - goal
        size = turned(metric, error).square().sum(1)
        solved = size <= tolerance**2
        better = size < shrink**2 * least
        best = torch.where(better[:, None], flow, best)
        misses += ~better
        converging = ~solved & (misses <= patience)
        if not converging.any():
            return torch.where(solved[:, None], flow, best), solved
        flow = torch.where(converging[:, None], flow - turned(step, error), flow)
        least = torch.where(better, size, least)


def norm_act(x: Tensor, slope: float) -> Tensor:
    """LReLU(IN(x)), (B, C, ...); by batch norm of each volume, which copies nothing."""
    if x.numel() == 0:
        return x.clone()
    if x.shape[2:].numel() == 1:  # its own mean, which batch norm refuses
        return x - x
    if 1 in x.shape[2:] and x.dim() == 5:  # an axis of any stride, which its gradient takes ill
        out = norm_act(x.flatten(2), slope).view(x.shape)
        last = not transforming() and x.stride(1) == 1
        return out.contiguous(memory_format=torch.channels_last_3d) if last else out
    volumes = [F.batch_norm(v, None, None, training=True) for v in working(x).split(1)]  # type: ignore[no-untyped-call]
    normed = volumes[0] if len(volumes) == 1 else torch.cat(volumes)
    return (normed if slope == 1 else F.leaky_relu(normed, slope)).to(x.dtype)


def moments(x: Tensor) -> Tensor:
    """Mean and 1 / sqrt(variance + 1e-5) of each channel of each volume: (2, B, C)."""
    variance, mean = torch.var_mean(working(x), (2, 3, 4), correction=0)
    return torch.stack([mean, (variance + 1e-5).rsqrt()])


def resize(x: Tensor, size: Sequence[int], factor: float = 1.0) -> Tensor:
    """The volume x (B, C, h, w, d) on a grid of `size` over the same extent, times a factor."""
    if x.numel() == 0:
        return x.new_zeros(*x.shape[:2], *size) + 0 * x.sum()
    wide = F.interpolate(working(x), size=tuple(size), mode="trilinear", align_corners=True)
    return (wide if factor == 1 else wide * factor).to(x.dtype)


def pool(x: Tensor, kind: str) -> Tensor:
    """Mean or maximum over 2^3 voxels of (B, C, H, W, D), sides even."""
    if x.numel() == 0:
        return x[:, :, ::2, ::2, ::2].clone()
    if kind == "max":  # of equal numbers the first gets the gradient
        return F.max_pool3d(working(x), 2).to(x.dtype)
    cubes = working(x).unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).flatten(5)
    return cubes.mean(5).to(x.dtype)


def normalised(x: Tensor, moments: Tensor, slope: float) -> Tensor:
    """leaky((x - shift) * scale), moments = shift and scale (2, B, C), as `convolve` reads."""
    shift, scale = working(moments)[..., None, None, None]
    return F.leaky_relu((working(x) - shift) * scale, slope).to(x.dtype)


def weigh(maps: Sequence[Tensor], logits: Tensor) -> Tensor:
    """Each map times its weight, side by side; the weights are the softmax of the logits."""
    weights = torch.softmax(working(logits), 1)
    parts = [weights[:, k : k + 1] * working(x) for k, x in enumerate(maps)]
    return torch.cat(parts, 1).to(maps[0].dtype)


def gate(z: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """sigmoid(MLP(mean) + MLP(max)) of each channel, mean and max over voxels: (B, C)."""
    rows = working(z).flatten(2)
    found = torch.stack([rows.mean(2), rows.amax(2)])
    hidden = F.relu(found @ first.to(found.dtype).T)
    return torch.sigmoid((hidden @ second.to(found.dtype).T).sum(0))


def feed_forward(x: Tensor, tokens: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """X plus the layers on the tokens, ReLU between them, (B, N, C)."""
    out = working(tokens)
    for n, (weight, bias) in enumerate(layers):
        out = F.linear(F.relu(out) if n else out, working(weight), working(bias))
    return (working(x) + out).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, transposed: bool) -> Tensor:
    """Layer norm of tokens (B, N, C); transposed: runs of C numbers of that as (B, C, N)."""
    normed = F.layer_norm(working(x), x.shape[2:], working(weight), working(bias)).to(x.dtype)
    return normed.transpose(1, 2).reshape(normed.shape) if transposed else normed


def gradient_loss(flow: Tensor) -> Tensor:
    """Mean squared forward difference of (B, 3, H, W, D) along each axis, their mean."""
    parts = []
    for axis in (2, 3, 4):
        pairs = flow.shape[axis] - 1
        first = max(min(pairs, 1), 0)
        after, before = (flow.narrow(axis, start, max(pairs, 0)) for start in (first, 0))
        parts.append(F.mse_loss(after, before) if after.numel() else after.sum())
    return torch.stack(parts).mean()


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Return second + warp(first, second): the flow that moves by `second`, then by `first`."""
    return second + warp(first, second, "trilinear", "zeros")


def integrate(velocity: Tensor, steps: int) -> Tensor:
    """exp(velocity): velocity / 2^steps, composed with itself `steps` times."""
    flow = velocity / 2**steps
    for _ in range(steps):
        flow = compose(flow, flow)
    return flow


def correlate(x: Tensor, y: Tensor, radius: int, step: int = 1) -> Tensor:
    """mean_c x(p) y(p + step o) for every o in {-radius..radius}^3, first axis slowest.

    y may have a margin: as many voxels more than x at both ends of every axis.
    """
    height, width, depth = x.shape[2:]
    margin = (y.shape[2] - height) // 2
    padded = F.pad(working(y), [radius * step - margin] * 6)
    features = working(x)
    planes = [
        (features * padded[:, :, i : i + height, j : j + width, k : k + depth]).mean(1)
        for i, j, k in itertools.product(range(0, (2 * radius + 1) * step, step), repeat=3)
    ]
    return torch.stack(planes, 1).to(x.dtype)


def neighbour_attention(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The mean offset under each head's softmax over the 27 neighbours; see the operation."""
    heads, (height, width, depth) = bias.shape[0], q.shape[2:]
    padded = torch.unflatten(F.pad(working(k), [1] * 6), 1, (heads, -1))
    queries = torch.unflatten(working(q), 1, (heads, -1))
    places = list(itertools.product(range(3), repeat=3))
    logits = torch.stack(
        [
            (queries * padded[..., i : i + height, j : j + width, m : m + depth]).sum(2)
            for i, j, m in places
        ],
        2,
    )
    shift = working(bias).to(logits.dtype).flatten(1)[..., None, None, None]
    weights = torch.softmax(logits * scale + shift, 2)
    cube = torch.unflatten(weights, 2, (3, 3, 3))
    ahead = [(cube.select(axis, 2) - cube.select(axis, 0)).sum((2, 3)) for axis in (2, 3, 4)]
    return torch.stack(ahead, 2).flatten(1, 2)


def box_lengths(size: int, count: int) -> list[int]:
    """Lengths of `count` boxes of ceil(size / count) along an axis, the last cut short."""
    step = math.ceil(size / count)
    return [min(step, size - start) for start in range(0, size, step)]


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout_p: float) -> Tensor:
    """softmax(q k^T * scale) v over the last two axes, with dropout on the weights."""
    weights = torch.softmax(working(q) @ working(k).transpose(-1, -2) * scale, -1)
    return (F.dropout(weights, dropout_p) @ working(v)).to(v.dtype)


Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    windows: int | tuple[int, int, int],
    dropout_p: float,
    volume: tuple[int, int, int] | None,
    attend: Attend = attend,
) -> Tensor:
    """Attention inside runs of tokens, or inside boxes of the volume that the tokens fill.

    attend: (q, k, v, scale, dropout_p) -> attention over the last two axes of (..., tokens, c).
    """
    batch, tokens = q.shape[:2]
    if isinstance(windows, int):
        q, k, v = (t.reshape(batch, windows, tokens // windows, t.shape[2]) for t in (q, k, v))
        return attend(q, k, v, scale, dropout_p).flatten(1, 2)
    assert volume is not None  # as the public operation has checked
    lengths = [box_lengths(s, n) for s, n in zip(volume, windows, strict=True)]
    q, k, v = (t.reshape(batch, *volume, t.shape[2]) for t in (q, k, v))
    out = torch.empty_like(v)
    ends = [list(itertools.accumulate(line)) for line in lengths]
    slices = [
        [slice(e - n, e) for e, n in zip(end, line, strict=True)]
        for end, line in zip(ends, lengths, strict=True)
    ]
    for box in itertools.product([slice(None)], *slices):
        q_box, k_box, v_box = (t[box].flatten(1, 3) for t in (q, k, v))
        out[box] = attend(q_box, k_box, v_box, scale, dropout_p).view_as(v[box])
    return out.flatten(1, 3)


STABILISER = 1e-5  # added to the product of two variances (paper eq. 10)


def local_moments(a: Tensor, b: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(cross, var_a var_b): centred sums over the window^3 around each voxel, zeros outside."""
    a, b = working(a), working(b)
    count = window**3
    sum_a, sum_b, sum_aa, sum_bb, sum_ab = (box_sum(x, window) for x in (a, b, a * a, b * b, a * b))
    cross = sum_ab - sum_a * sum_b / count
    var_a = sum_aa - sum_a * sum_a / count
    var_b = sum_bb - sum_b * sum_b / count
    # Below 0 by rounding alone: a pole where it nears -STABILISER.
    return cross, (var_a * var_b).clamp(min=0)


def local_ncc(a: Tensor, b: Tensor, window: int, weight: Tensor | None = None) -> Tensor:
    """Mean of cross^2 / (var_a var_b + 1e-5) over voxels; sums over window^3, zeros outside."""
    cross, product = local_moments(a, b, window)
    cc = cross * cross / (product + STABILISER)
    if weight is None:
        return cc.mean()
    weight = weight.to(cc.dtype).expand_as(cc)
    return (weight * cc).sum() / weight.sum()


class BoxSum(torch.autograd.Function):
    """Sum over a centred cube, zeros outside: symmetric, so it is its own adjoint."""

    @staticmethod
    def forward(x: Tensor, window: int) -> Tensor:
        return run_sums(x, window)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.window = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        return box_sum(grad, ctx.window), None


def box_sum(x: Tensor, window: int) -> Tensor:
    """Sum of x over the window^3 cube centred on each voxel, zeros outside the volume."""
    plain = transforming() or tracing()
    return run_sums(x, window) if plain else BoxSum.apply(x, window)


def run_sums(x: Tensor, window: int) -> Tensor:
    """The same by sums along each axis, and so is what autograd makes of it."""
    for axis in (-3, -2, -1):
        x = run_sum(x, window, axis)
    return x


def run_sum(x: Tensor, window: int, axis: int) -> Tensor:
    """Centred sum of `window` neighbours along an axis, by doubling: log2(window) additions."""
    size = x.shape[axis]
    pad = [0, 0] * 3
    pad[2 * (-1 - axis)] = pad[2 * (-1 - axis) + 1] = window // 2
    block, length = F.pad(x, pad), 1  # block[i] holds the sum of `length` neighbours from i on
    total, start = block.narrow(axis, 0, size), 1  # the window is odd: its lowest bit is set
    while 2 * length <= window:
        keep = block.shape[axis] - length
        block = block.narrow(axis, 0, keep) + block.narrow(axis, length, keep)
        length *= 2
        if window & length:
            total = total + block.narrow(axis, start, size)
            start += length
    return total
