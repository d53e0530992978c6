"""VoxelMorph: a U-Net predicts a velocity, which is integrated at half the size."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.layers import Block, FlowConv
from ..nn.pyramid import ConvAct, conv_of_enlarged, nearest_up
from ..ops import gradient_loss, integrate, pool, resize
from .network import Network, Shape

SLOPE = 0.2
FEATURES = ((16, 32, 32, 32), (32, 32, 32, 32, 32, 16, 16))
PASSED = (  # what a published configuration calls as the constructor does
    *("nb_unet_features", "nb_unet_levels", "unet_feat_mult", "nb_unet_conv_per_level"),
    *("int_steps", "int_downsize", "unet_half_res"),
)


def widths(features: Any, levels: int | None, growth: float, convs: int) -> tuple[Any, Any]:
    """Those of the encoder and of the decoder, one for each convolution."""
    if features is None:
        return FEATURES
    if isinstance(features, int) and levels is not None:
        each = [round(features * growth**level) for level in range(levels)]
        return (
            tuple(n for n in each[:-1] for _ in range(convs)),
            tuple(n for n in reversed(each) for _ in range(convs)),
        )
    if isinstance(features, int) or len(features) != 2 or levels is not None:
        raise InputError(
            "nb_unet_features must be None, two lists, or a number with nb_unet_levels, got "
            f"{features!r} with nb_unet_levels={levels!r}"
        )
    return tuple(features[0]), tuple(features[1])


class UNet(Block):
    """The U-Net of `unet_model`, (B, inputs, H, W, D) -> (B, outputs, H, W, D), or half the size.

    encoder, decoder: widths. convs: convolutions at each level. halved: no last doubling.
    """

    def __init__(
        self, inputs: int, encoder: Sequence[int], decoder: Sequence[int], convs: int, halved: bool
    ) -> None:
        super().__init__()
        self.depth, self.halved = len(encoder) // convs, halved
        last, skips = inputs, []

        def stage(outputs: Sequence[int], inputs: int) -> nn.ModuleList:
            ends = zip([inputs, *outputs], outputs, strict=False)
            return nn.ModuleList(ConvAct(a, b, SLOPE) for a, b in ends)

        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in range(self.depth):
            outputs = encoder[level * convs : (level + 1) * convs]
            self.encoder.append(stage(outputs, last))
            last = outputs[-1]
            skips.append(last)
        for level in range(self.depth):
            outputs = decoder[level * convs : (level + 1) * convs]
            self.decoder.append(stage(outputs, last))
            last = outputs[-1] + (skips.pop() if self.doubles(level) else 0)
        surplus = decoder[self.depth * convs :]
        self.remaining = stage(surplus, last)
        self.outputs = surplus[-1] if surplus else last

    def doubles(self, level: int) -> bool:
        """Whether a level of the decoder doubles the sides."""
        return not self.halved or level < self.depth - 1

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        skips = []
        for stage in self.encoder:
            for conv in stage:  # type: ignore[attr-defined]
                x = conv(x)
            skips.append(x)
            x = pool(x, "max")[0]
        for conv in self.decoder[0]:  # type: ignore[attr-defined]
            x = conv(x)
        for level, stage in enumerate([*self.decoder, self.remaining][1:]):
            # what is doubled and joined with a skip is for the convolution that comes next
            first, *others = stage or [None]
            if self.doubles(level):
                x = joined(x, skips.pop(), first)
            elif first is not None:
                x = first(x)
            for conv in others:
                x = conv(x)
        return x


def joined(x: Tensor, skip: Tensor, conv: ConvAct | None) -> Tensor:
    """The convolution of a doubled map beside a skip; or the two themselves where there is none."""
    if conv is None:
        return torch.cat([nearest_up(x), skip], 1)
    return conv_of_enlarged(conv, x, skip)


class VoxelMorph(Network):
    """Balakrishnan et al. (2019), Dalca et al. (2019): the published PyTorch version, VxmDense.

    size: (H, W, D) of the volumes, for information: any volume is padded with zeros, at the far
        ends, to sides that the pooling divides, and the flow is cropped back.
    in_channel: channels of each image.
    nb_unet_features: None for the published widths, two lists (encoder, decoder), or one number
        with nb_unet_levels and unet_feat_mult, by which it grows from level to level.
    nb_unet_conv_per_level: convolutions at each level.
    int_steps: squarings of the integration; 0 for none: the velocity is the flow then.
    int_downsize: by what the sides of the velocity are divided before it is integrated.
    unet_half_res: the U-Net ends at half the size; needs int_steps and int_downsize 2.
    checkpoint: None, or "blocks" to recompute the U-Net in the backward.

    Published state dicts load as they are, with or without grids, strictly.
    Raises InputError for invalid arguments.
    """

    name, title = "voxelmorph", "VoxelMorph"
    least = 1

    def __init__(
        self,
        size: Sequence[int],
        in_channel: int = 1,
        nb_unet_features: Any = None,
        nb_unet_levels: int | None = None,
        unet_feat_mult: float = 1,
        nb_unet_conv_per_level: int = 1,
        int_steps: int = 7,
        int_downsize: int = 2,
        unet_half_res: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        convs = nb_unet_conv_per_level
        if convs < 1:
            raise InputError(f"nb_unet_conv_per_level must be at least 1, got {convs}")
        encoder, decoder = widths(nb_unet_features, nb_unet_levels, unet_feat_mult, convs)
        if not encoder or len(encoder) % convs or len(decoder) < len(encoder):
            raise InputError(
                f"the encoder must have {convs} widths for each level, the decoder at least as "
                f"many, got {list(encoder)} and {list(decoder)}"
            )
        if not all(isinstance(n, int) and n > 0 for n in (*encoder, *decoder)):
            raise InputError(f"widths must be whole numbers from 1 on, got {encoder} and {decoder}")
        if int_steps < 0 or int_downsize < 1:
            raise InputError(
                f"int_steps must be at least 0 and int_downsize at least 1, got {int_steps} and "
                f"{int_downsize}"
            )
        if unet_half_res and (not int_steps or int_downsize != 2):
            raise InputError("unet_half_res needs int_steps of at least 1 and int_downsize 2")
        self.multiple = math.lcm(2 ** (len(encoder) // convs), int_downsize)
        super().__init__(
            size,
            in_channel=in_channel,
            nb_unet_features=nb_unet_features,
            nb_unet_levels=nb_unet_levels,
            unet_feat_mult=unet_feat_mult,
            nb_unet_conv_per_level=convs,
            int_steps=int_steps,
            int_downsize=int_downsize,
            unet_half_res=unet_half_res,
        )
        self.unet_model = UNet(2 * in_channel, encoder, decoder, convs, unet_half_res)
        self.flow = FlowConv(self.unet_model.outputs)
        nn.init.normal_(self.flow.weight, std=1e-5)
        nn.init.zeros_(self.flow.bias)
        self.finish(checkpoint)

    def velocity(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The velocity (B, 3, h, w, d) that is integrated, in voxels of its own grid.

        The images must be of a size that the network takes. Its negative gives the flow from the
        fixed to the moving image.
        """
        velocity = self.flow(self.unet_model(torch.cat([moving, fixed], 1)))
        down = self.config["int_downsize"]
        if down == 1 or not self.config["int_steps"] or self.config["unet_half_res"]:
            return velocity
        return resize(velocity, [n // down for n in velocity.shape[2:]], factor=1 / down)

    def flow_from(self, velocity: Tensor, size: Sequence[int]) -> Tensor:
        """The flow on the grid of `size` that a velocity makes."""
        steps, down = self.config["int_steps"], self.config["int_downsize"]
        if not steps:
            return velocity
        flow = integrate(velocity, steps)
        return flow if down == 1 else resize(flow, list(size), factor=down)

    def flow_of(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The flow between images of a size that the network takes."""
        return self.flow_from(self.velocity(moving, fixed), moving.shape[2:])

    def flow_and_roughness(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The authors smooth the velocity, times `int_downsize`."""
        velocity = self.velocity(moving, fixed)
        roughness = gradient_loss(velocity) * self.config["int_downsize"]
        return self.flow_from(velocity, moving.shape[2:]), roughness

    @classmethod
    def options_of(cls, shapes: Mapping[str, Shape], about: Mapping[str, Any]) -> dict[str, Any]:
        """As the file's configuration says, else by shapes; steps are then the usual 7."""
        if about:
            return configured(about)
        stages: dict[str, list[Shape]] = {}
        for name, shape in shapes.items():
            part, _, end = name.removeprefix("unet_model.").partition(".")
            if end.endswith("main.weight"):
                stages.setdefault(part, []).append(shape)
        encoder, decoder = stages["encoder"], stages["decoder"]
        surplus = stages.get("remaining", [])
        follows = [*surplus, shapes["flow.weight"]][0]
        grids = [shapes.get(f"{name}.grid") for name in ("transformer", "integrate.transformer")]
        down = 2
        if grids[0] and grids[1]:
            down = grids[0][-1] // grids[1][-1]
        return {
            "in_channel": encoder[0][1] // 2,
            "nb_unet_features": [[s[0] for s in encoder], [s[0] for s in (*decoder, *surplus)]],
            "nb_unet_conv_per_level": sum(
                name.startswith("unet_model.encoder.0.") for name in shapes
            )
            // 2,
            "int_steps": 0 if grids[0] and not grids[1] else 7,
            "int_downsize": down,
            "unet_half_res": follows[1] == decoder[-1][0],
        }

    @classmethod
    def refuse_variant(cls, names: Collection[str]) -> None:
        """Refuse the network of the same name from before 1 February 2021."""
        if any(name.startswith("unet_model.downarm") for name in names):
            raise InputError(
                "these are weights of VoxelMorph from before February 2021 (unet_model.downarm), "
                "another network, which strides instead of pooling; only the later one is offered"
            )


def configured(about: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a published file's configuration names. Raises InputError."""
    channels = {about.get("src_feats", 1), about.get("trg_feats", 1)}
    if len(channels) > 1:
        raise InputError(f"images must have equally many channels, got {sorted(channels)}")
    if about.get("use_probs"):
        raise InputError("a probabilistic VoxelMorph (use_probs) is not offered")
    found = {name: about[name] for name in PASSED if about.get(name) is not None}
    if "inshape" in about:
        found["size"] = tuple(about["inshape"])
    return {"in_channel": channels.pop(), **found}
