"""Cases: a piece of work at one size, and the ways to do it."""

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
    """None: there is no device on which it cannot run."""


@dataclass(frozen=True)
class Way:
    """One way to do a piece of work.

    build: (size, dtype, device) -> the function to call with the inputs. refusal: device -> why it
    cannot run there, or None. slow_start: its first call compiles for a long time.
    """

    build: Callable[[Size, torch.dtype, str], Call]
    refusal: Callable[[str], str | None] = runs_anywhere
    slow_start: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One piece of work at one size.

    operation: its name, and that of its file. ways: by name; ratios are relative to the first.
    inputs: (size, dtype, device) -> tensors; gradients are computed for those that require one.
    detail: further text for the table. modes: of MODES, or a name for a whole call. work: size ->
    multiplications and additions of the forward, or of the whole call. quick: also measured by
    --quick. memory: the peak is measured too. rounds: at least. warm: each way is called once
    before the timing. tolerance: the allowed difference from the result of the first way, relative
    to its largest value; None if results are not compared. any_size: whether it can run at another
    size.
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
        """The way to which ratios are relative."""
        return next(iter(self.ways))

    @property
    def type(self) -> str:
        """The name of the number type."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def id(self) -> str:
        """Its name among the cases of its file."""
        return "-".join(filter(None, (shown(self.size), self.detail.replace(" ", "_"), self.type)))

    def inputs_on(self, device: str) -> tuple[Tensor, ...]:
        """The inputs of every way."""
        return self.inputs(self.size, self.dtype, device)

    def of_size(self, size: Size) -> Case:
        """The same case at another size."""
        return replace(self, size=size)

    def in_bfloat16(self) -> Case:
        """The same case in bfloat16, without the measurements that float32 covers."""
        ways = {name: way for name, way in self.ways.items() if not way.slow_start}
        modes = ("forward", "full")
        return replace(
            self, dtype=torch.bfloat16, ways=ways, modes=modes, memory=False, tolerance=0.05
        )


def shown(size: Size) -> str:
    """The size as text, such as 96x112x80."""
    return "x".join(map(str, size))


def ready(
    case: Case, way: str, mode: str, device: str, inputs: tuple[Tensor, ...]
) -> Callable[[], Callable[[], Any]]:
    """A function that prepares, without being timed, the call to time, and returns that call.

    For the backward it runs the forward. The gradient of a result is the result itself.
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
    """The minimum of bytes that the work moves: every input read once, every result written once.

    result: bytes of the result of the forward.
    """
    read = sum(x.nbytes for x in inputs)
    wanted = sum(x.nbytes for x in inputs if x.requires_grad)
    forward, backward = read + result, read + result + wanted
    return {"forward": forward, "backward": backward}.get(mode, forward + backward)


def image(size: Size, dtype: torch.dtype, device: str, channels: int = 1, seed: int = 0) -> Tensor:
    """A smooth (1, channels, H, W, D) volume in [0, 1] with a little noise, requiring a gradient.

    More than one channel are in channels_last_3d, like the features of the network.
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
    """The number of voxels."""
    return size[0] * size[1] * size[2]
