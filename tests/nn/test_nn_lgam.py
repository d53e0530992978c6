"""Attention blocks: the published order against the published blocks, the spatial one against
a plain implementation of boxes.
"""

import itertools

import pytest
import torch

from lganet_fast.models import published
from lganet_fast.nn.lgam import LGAM, PositionAttention

CHANNELS = 16


def filled(module, seed=0):
    """The module in float64 and evaluation mode with values from a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return module.double().eval()


def features(*size, batch=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, CHANNELS, *size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("size", [(6, 6, 6), (6, 12, 13), (12, 12, 18)])
def test_published_order_is_the_published_block(size):
    ours = filled(LGAM(CHANNELS, "published", 0.1))
    theirs = published.SwinBlock(CHANNELS, 0.1).double().eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(features(*size)), theirs(features(*size)))


def test_position_attention_is_the_published_block():
    ours = filled(PositionAttention(CHANNELS))
    theirs = published.PositionAttention(CHANNELS).double()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(features(3, 4, 5)), theirs(features(3, 4, 5)))


def spatial_round(block, x, local):
    """One step, x + ffn(attention(ln(x))) box by box, for one volume (C, H, W, D)."""
    part = block.gsa if local else block.lsa
    size = x.shape[1:]
    sides = [-(-n // max(n // 6, 1)) if local else n for n in size]
    starts = itertools.product(*(range(0, n, side) for n, side in zip(size, sides, strict=True)))
    out = torch.empty_like(x)
    for start in starts:
        box = (slice(None), *(slice(s, s + n) for s, n in zip(start, sides, strict=True)))
        voxels = x[box].flatten(1)
        mean, var = voxels.mean(0), voxels.var(0, correction=0)
        normed = (voxels - mean) / (var + 1e-5).sqrt()
        normed = normed * block.ln.weight[:, None] + block.ln.bias[:, None]
        q, k, v = (f.weight @ normed for f in (part.q, part.k, part.v))
        weights = torch.softmax(q.T @ k / (CHANNELS // 8) ** 0.5, 1)
        done = part.proj(weights @ v.T).T.reshape(x[box].shape)
        out[box] = block.ffn(done[None])[0]
    return x + out


@pytest.mark.parametrize("size", [(4, 6, 11), (6, 12, 13), (22, 7, 6)])
def test_spatial_order_is_attention_in_boxes(size):
    block = filled(LGAM(CHANNELS, "spatial", 0.1))
    wanted = []
    for volume in features(*size):
        x = volume
        for _ in range(2):
            x = spatial_round(block.attn, spatial_round(block.attn, x, False), True)
        wanted.append(x)
    torch.testing.assert_close(block(features(*size)), torch.stack(wanted))
