"""The base class of every registration network: sizes, checks, padding, state dicts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.layers import Block
from ..ops import check, gradient_loss
from ..ops.torch_func import tracing
from .atlas import Atlas
from .graphed import Graphs
from .sizes import Size, smallest_that_fits
from .tracing import traced

Shape = tuple[int, ...]
SIMPLE_ITK = {
    "intensity": "[0, 1], background 0",
    "axis_order": "z, y, x as SimpleITK hands arrays out",
}


class Network(nn.Module):
    """A network that computes the flow aligning a pair of volumes.

    A subclass names its parts like the published checkpoints, so that their state dicts load
    strictly; buffers and unused parameters are dropped (`BUFFERS`, `dead`).

    name: in `models.create`, in configurations and checkpoints. title: in messages. multiple,
    least: of each side, the number it must be a multiple of and its minimum; `padded_size` may
    require more. voxel_bytes: peak memory of the forward per voxel in float32 (`models.graphed`).
    published_card: what is known about the training images of published weights.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    multiple: int = 8
    least: int = 16
    voxel_bytes: int = 1000
    published_card: ClassVar[Mapping[str, str]] = {}
    BUFFERS: ClassVar[str] = r"(^|\.)grid$"

    def __init__(self, size: Sequence[int], **options: Any) -> None:
        """Raises InputError for an invalid size or `in_channel`."""
        super().__init__()
        if options.get("in_channel", 1) < 1:
            raise InputError(f"in_channel must be at least 1, got {options['in_channel']}")
        self.config: dict[str, Any] = {"size": tuple(size), "in_channel": 1, **options}
        self.padded_size(size)
        self.register_load_state_dict_pre_hook(drop_published)  # type: ignore[no-untyped-call]

    def finish(self, checkpoint: str | None) -> None:
        """Last in a subclass's constructor. checkpoint: None, or "blocks" for `Block.recompute`."""
        if checkpoint not in (None, "blocks"):
            raise InputError(f'checkpoint must be None or "blocks", got {checkpoint!r}')
        for module in self.modules():
            if isinstance(module, Block):
                module.recompute = checkpoint == "blocks"
        for p in self.parameters():
            if p.dim() == 5:  # Module.to refuses where others have four axes
                p.data = p.data.to(memory_format=torch.channels_last_3d)
        self.graphs = Graphs(self.voxel_bytes)
        self.atlas = Atlas()

    def padded_size(self, size: Sequence[int]) -> Size:
        """The smallest size that the network supports and that contains (H, W, D).

        Raises InputError unless it is three sides of at least one voxel.
        """
        return smallest_that_fits(size, self.multiple, self.least)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow u, in voxels, with which warp(moving, u) resembles fixed.

        moving, fixed: (B, in_channel, H, W, D) of one shape and float type, intensities as in
        training. Volumes of any size are padded with zeros at the far ends, the flow is cropped.
        Returns (B, 3, H, W, D), channels in the order of the axes, at least float32.
        Raises ValueError or TypeError naming the invalid argument.

        torch.export.export and torch.jit.trace take it in evaluation mode, for the shape of their
        example; what is traced gives no gradients.
        """
        if tracing():
            with traced():
                # recorded, so that what was traced refuses other shapes
                same = [x.expand(x.shape) for x in (moving, fixed)]
                return self.forward_of_numbers(*same)
        return self.forward_of_numbers(moving, fixed)

    def regularised(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The flow, and the roughness that the method's authors add to the loss with a weight.

        moving, fixed: as in `forward`, whose flow it returns. The roughness is one number: for most
        methods `ops.gradient_loss` of the flow, else see the class.
        """
        self.check_images(moving, fixed)
        flow, roughness = self.flow_and_roughness(*self.padded(moving, fixed))
        height, width, depth = moving.shape[2:]
        return flow[:, :, :height, :width, :depth], roughness

    def forward_of_numbers(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The forward where sizes are plain numbers."""
        self.check_images(moving, fixed)
        return self.graphs(self, self.run, moving, fixed)

    def check_images(self, moving: Tensor, fixed: Tensor) -> None:
        """Check the arguments of `forward`."""
        self.check_image("moving", moving)
        check.shape("fixed", fixed, moving.shape)
        check.floating("fixed", fixed, (moving.dtype,))
        check.together("fixed", fixed, "moving", moving)

    def prepare(self, fixed: Tensor) -> list[Tensor]:
        """The part of the forward that depends on the fixed image alone, for `onto`.

        fixed: as in `forward`. The result is valid for the current weights and types and must not
        be written to. Raises as `forward` does.
        """
        self.check_image("fixed", fixed)
        return list(self.of_fixed(*self.padded(fixed)))

    def onto(self, moving: Tensor, prepared: Sequence[Tensor]) -> Tensor:
        """The forward for a moving image and the result of `prepare` for the fixed image.

        moving: of the fixed image's type. With the compiled operators for the CPU the result equals
        that of `forward` bit for bit; others may sum in another order. Raises as `forward` does.
        """
        self.check_image("moving", moving)
        check.together("moving", moving, "what was prepared", prepared[0])
        batch, _, *size = prepared[0].shape
        if [moving.shape[0], *self.padded_size(moving.shape[2:])] != [batch, *size]:
            raise ValueError(
                f"moving must be as large as the image that was prepared, {batch} of {size} voxels "
                f"after padding, got {tuple(moving.shape)}"
            )
        return self.graphs(self, self.run_onto, moving, *prepared)

    def check_image(self, name: str, image: Tensor) -> None:
        """Require (B, in_channel, H, W, D) of a float type."""
        check.shape(name, image, ("B", self.config["in_channel"], "H", "W", "D"))
        check.floating(name, image)

    def run_onto(self, moving: Tensor, *prepared: Tensor) -> Tensor:
        """`onto` for arguments that have been checked, operator by operator."""
        height, width, depth = moving.shape[2:]
        flow = self.flow_onto(*self.padded(moving), *prepared)
        return flow[:, :, :height, :width, :depth]

    def run(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The forward for arguments that have been checked, operator by operator."""
        height, width, depth = moving.shape[2:]
        flow = self.flow_of(*self.padded(moving, fixed))
        return flow[:, :, :height, :width, :depth]

    def padded(self, *images: Tensor) -> list[Tensor]:
        """Images padded to a supported size, channels_last_3d."""
        size = images[0].shape[2:]
        ends = [n - m for n, m in zip(self.padded_size(size), size, strict=True)]
        if any(ends):
            images = tuple(F.pad(x, [0, ends[2], 0, ends[1], 0, ends[0]]) for x in images)
        return [x.contiguous(memory_format=torch.channels_last_3d) for x in images]

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow between images of a padded size, channels_last_3d."""
        raise NotImplementedError

    def of_fixed(self, fixed: Tensor) -> Sequence[Tensor]:
        """What `flow_onto` takes of a fixed image that `flow_of` would take; itself where a network
        has nothing to make of it alone. The first of it is as large as the image.
        """
        return [fixed]

    def flow_onto(self, moving: Tensor, *prepared: Tensor) -> Tensor:
        """The result of `flow_of`, from the moving image and the result of `of_fixed`."""
        return self.flow_of(moving, *prepared)

    def flow_and_roughness(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """`regularised` for images of a padded size."""
        flow = self.flow_of(moving, fixed)
        return flow, gradient_loss(flow)

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor's options, except the size, from a published state dict.

        shapes: of its entries. about: further content of its file, if any.
        Raises InputError for a variant of the method that is not supported.
        """
        return {}

    @classmethod
    def refuse_variant(cls, names: Collection[str]) -> None:
        """Raise InputError if names are those of a variant of the method not offered here."""

    @classmethod
    def size_of(cls, shapes: Mapping[str, Shape]) -> Size | None:
        """The volume size of a published state dict, if known: that of its largest grid."""
        grids = [x[-3:] for name, x in shapes.items() if name.endswith("grid") and len(x) == 5]
        return max(grids, key=lambda s: s[0] * s[1] * s[2], default=None)

    def dead(self) -> Mapping[str, Shape]:
        """Names and shapes of published parameters that the forward does not use."""
        return {}

    def published_name(self, name: str) -> str:
        """A parameter's name in published state dicts."""
        return name

    def published_parameters(self) -> dict[str, Shape]:
        """Names and shapes of all parameters in published state dicts, live and dead."""
        own = {self.published_name(n): tuple(p.shape) for n, p in self.named_parameters()}
        return {**own, **self.dead()}


def is_buffer(kind: type[Network], name: str) -> bool:
    """Whether an entry of a published state dict is a buffer, which is dropped."""
    return re.search(kind.BUFFERS, name) is not None


def without_extras(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names, without buffers and dead parameters."""
    names = {network.published_name(n): n for n, _ in network.named_parameters()}
    kept = {k: x for k, x in state.items() if not is_buffer(type(network), k)}
    if strange := kept.keys() - names.keys() - set(names.values()):
        dead = network.dead().keys()
        kept = {k: x for k, x in kept.items() if k not in strange or k not in dead}
    return {names.get(k, k): x for k, x in kept.items()}


def drop_published(network: Network, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before loading a state dict: convert a published one to this network's names."""
    own = {k.removeprefix(prefix): state.pop(k) for k in list(state) if k.startswith(prefix)}
    state.update({prefix + name: x for name, x in without_extras(network, own).items()})
