"""The addresses of the tokens of a window, and reads and writes of a tile of tokens.

Windows are not copied. A window is a box of the volume that the tokens fill; a run of tokens is a
box of one line.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tokens_at(start, box, BLOCK: tl.constexpr, BOXES: tl.constexpr, WIDE: tl.constexpr):
    """The numbers of the tokens of a box from index `start` on, and which of them exist."""
    first, lines, line, count, width, depth = box
    i = start + tl.arange(0, BLOCK)
    exists = i < count
    if BOXES:
        i = (i // (lines * line) * width + i // line % lines) * depth + i % line
    token = first + i
    if WIDE:
        token = token.to(tl.int64)
    return token, exists


@triton.jit
def tile_of(place, BLOCK: tl.constexpr, BOXES: tl.constexpr, WIDE: tl.constexpr):
    """The tile of this program.

    Returns the index of its first token in the window, the window, the batch, the window as a box,
    the numbers of the tile's tokens, and which of them exist. A box is its first token, its sizes
    along the last two axes, its number of tokens, and the volume's sizes along the last two axes.
    """
    windows, height, width, depth, box_h, box_w, box_d = place
    tiles = tl.cdiv(box_h * box_w * box_d, BLOCK)
    start = tl.program_id(0) % tiles * BLOCK
    window = tl.program_id(0) // tiles
    inside = window % windows
    batch = (window // windows).to(tl.int64)
    if BOXES:
        across, deep = tl.cdiv(width, box_w), tl.cdiv(depth, box_d)
        h = inside // (across * deep) * box_h
        w = inside // deep % across * box_w
        d = inside % deep * box_d
        lines, line = tl.minimum(box_w, width - w), tl.minimum(box_d, depth - d)
        count = tl.minimum(box_h, height - h) * lines * line
        first = (h * width + w) * depth + d
    else:
        h = inside * box_h
        lines, line = width, depth
        count = tl.minimum(box_h, height - h) * lines * line
        first = h * width * depth
    box = (first, lines, line, count, width, depth)
    token, exists = tokens_at(start, box, BLOCK, BOXES, WIDE)
    return start, window, batch, box, token, exists


@triton.jit
def rows_at(base, token, exists, step: tl.constexpr, far, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The addresses of tokens as a tile (tokens, BLOCK), and which of the numbers exist.

    step: the stride between tokens. far: the stride between channels.
    """
    c = tl.arange(0, BLOCK)
    mask = exists[:, None]
    if WIDTH != BLOCK:
        mask = mask & (c < WIDTH)[None, :]
    return base + (token * step)[:, None] + (c.to(token.dtype) * far)[None, :], mask


@triton.jit
def load_rows(
    base, token, exists, step: tl.constexpr, far, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """Tokens as a tile (tokens, BLOCK), zero for those that do not exist."""
    where, mask = rows_at(base, token, exists, step, far, WIDTH, BLOCK)
    return tl.load(where, mask, 0.0)


@triton.jit
def store_rows(
    base, token, exists, rows, step: tl.constexpr, far, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """Store a tile of tokens, as `load_rows` reads it."""
    where, mask = rows_at(base, token, exists, step, far, WIDTH, BLOCK)
    tl.store(where, rows.to(base.dtype.element_ty), mask)
