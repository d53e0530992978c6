"""What is measured: a piece of work at one size, and the ways to do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int, int]
Call = Callable[..., Any]
MODES = ("forward", "backward", "full")

LPBA40: Size = (144, 176, 144)
IXI_OASIS: Size = (96, 112, 80)
LUNG_CT: Size = (96, 192, 192)
ABDOMEN: Size = (144, 160, 192)
IXI_WHOLE: Size = (160, 192, 224)
PAPER = (LPBA40, IXI_OASIS, LUNG_CT, ABDOMEN)


def runs_anywhere(device: str) -> None:
    """No reason against."""


@dataclass(frozen=True)
class Way:
    """One way to do a piece of work.

    build: (size, dtype, device) -> what is called with the inputs. refusal: device -> why it cannot
    run there, or None. slow_start: its first call compiles for long.
    """

    build: Callable[[Size, torch.dtype, str], Call]
    refusal: Callable[[str], str | None] = runs_anywhere
    slow_start: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One piece of work at one size.

    operation: its name, and that of its file. ways: by name; ratios are against the first.
    inputs: (size, dtype, device) -> tensors, of which those that require a gradient get one.
    detail: what else the table says of it. modes: of MODES, or a name for a call that is whole.
    work: size -> multiplications and additions of the forward, or of the whole call.
    quick: measured by --quick too. memory: its peak is measured too. rounds: at least.
    warm: each way is called once before the clock runs. tolerance: by which results may differ from
    the first way's, as a part of its largest value; None where they are not compared. any_size:
    whether it can be done at another size.
    """

    operation: str
    size: Size
    ways: Mapping[str, Way]
    inputs: Callable[[Size, torch.dtype, str], tuple[Tensor, ...]]
    dtype: torch.dtype = torch.float32
    detail: str = ""
    modes: tuple[str, ...] = MODES
    work: Callable[[Size], float] | None = None
    quick: bool = False
    memory: bool = False
    rounds: int = 3
    warm: bool = True
    tolerance: float | None = 1e-3
    any_size: bool = True

    @property
    def baseline(self) -> str:
        """The way that ratios are against."""
        return next(iter(self.ways))

    @property
    def type(self) -> str:
        """The number type's name."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def id(self) -> str:
        """What tells it from the others of its file."""
        return "-".join(filter(None, (shown(self.size), self.detail.replace(" ", "_"), self.type)))

    def inputs_on(self, device: str) -> tuple[Tensor, ...]:
        """What every way is called with."""
        return self.inputs(self.size, self.dtype, device)

    def of_size(self, size: Size) -> Case:
        """The same at another size."""
        return replace(self, size=size)

    def in_bfloat16(self) -> Case:
        """The same in bfloat16, without what float32 has told already."""
        ways = {name: way for name, way in self.ways.items() if not way.slow_start}
        modes = ("forward", "full")
        return replace(
            self, dtype=torch.bfloat16, ways=ways, modes=modes, memory=False, tolerance=0.05
        )


def shown(size: Size) -> str:
    """The size as people write it."""
    return "x".join(map(str, size))


def ready(
    case: Case, way: str, mode: str, device: str, inputs: tuple[Tensor, ...]
) -> Callable[[], Callable[[], Any]]:
    """What makes ready, outside the clock, a call to be timed; it returns that call.

    For the backward, the forward is what must be ready. The gradient of a result is the result.
    """
    call = case.ways[way].build(case.size, case.dtype, device)
    leaves = [x for x in inputs if x.requires_grad]

    def forward() -> Any:
        with torch.no_grad():
            return call(*inputs)

    def backward_of(out: Tensor) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(out, leaves, out.detach())

    def forward_and_backward() -> Any:
        return backward_of(call(*inputs))()

    calls: dict[str, Callable[[], Callable[[], Any]]] = {
        "forward": lambda: forward,
        "backward": lambda: backward_of(call(*inputs)),
        "full": lambda: forward_and_backward,
    }
    return calls.get(mode, lambda: lambda: call(*inputs))


def traffic(inputs: tuple[Tensor, ...], mode: str, result: int) -> int:
    """The fewest bytes that the work can move: every input read once, every result written once.

    result: bytes of the forward's.
    """
    read = sum(x.nbytes for x in inputs)
    wanted = sum(x.nbytes for x in inputs if x.requires_grad)
    forward, backward = read + result, read + result + wanted
    return {"forward": forward, "backward": backward}.get(mode, forward + backward)


def image(size: Size, dtype: torch.dtype, device: str, channels: int = 1, seed: int = 0) -> Tensor:
    """A smooth (1, channels, H, W, D) volume in [0, 1] with a little noise, requiring a gradient.

    More than one channel lie side by side in memory, as the network's features do.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = [max(2, n // 8) for n in size]
    smooth = F.interpolate(
        torch.rand(1, channels, *coarse, generator=generator), size=size, mode="trilinear"
    )
    x = smooth + 0.02 * torch.rand(1, channels, *size, generator=generator)
    layout = torch.channels_last_3d if channels > 1 else torch.contiguous_format
    x = x.to(device, dtype).contiguous(memory_format=layout)
    return x.requires_grad_(True)


def flow(size: Size, device: str, voxels: float = 3.0) -> Tensor:
    """A smooth (1, 3, H, W, D) float32 flow of up to `voxels`, requiring a gradient."""
    unit = image(size, torch.float32, "cpu", channels=3, seed=1).detach().contiguous()
    return ((2 * unit - 1) * voxels).to(device).requires_grad_(True)


def voxels(size: Size) -> int:
    """Their number."""
    return size[0] * size[1] * size[2]
