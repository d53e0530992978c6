"""The contents of each table and figure: a data set, and a row for each method.

The numbering of the paper's tables is not known: the numbers here follow the order of its data
sets, with the ablation last. Of its figures only the kinds are known: slices, flows at each level,
box plots.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

NETWORKS = (
    *("voxelmorph", "pivit", "prnetpp", "pcnet", "modet", "corrmlp", "groupmorph", "rdp"),
    *("lganet", "lganetpp"),
)
OURS = "lganetpp"  # the method that the others are compared with
SMALL = "lpba40_small"  # the configuration of runs with a time budget


@dataclass(frozen=True)
class Row:
    """A method of a table.

    name: of its folder, and for `--methods`. settings: "section.key=value" that override the data
    set's configuration. trained: whether it has weights.
    """

    name: str
    settings: tuple[str, ...] = ()
    trained: bool = True

    @property
    def title(self) -> str:
        """The name in tables."""
        return TITLES[self.name]


@dataclass(frozen=True)
class Target:
    """A table, or a figure.

    shows: a short description. config: the shipped configuration. figures: files to collect from
    the evaluation of every row.
    """

    name: str
    shows: str
    config: str
    rows: tuple[Row, ...]
    figures: tuple[str, ...] = ()

    def chosen(self, names: list[str] | None) -> list[Row]:
        """The rows, or those of some names. Raises InputError for an unknown name."""
        known = [row.name for row in self.rows]
        for name in names or []:
            if name not in known:
                raise InputError(f"{self.name} has no method {name}; it has {', '.join(known)}")
        return [row for row in self.rows if not names or row.name in names]


TITLES = {
    "before": "Before",
    "syn": "SyN",
    "voxelmorph": "VoxelMorph",
    "pivit": "PIViT",
    "prnetpp": "PRNet++",
    "pcnet": "PCNet",
    "modet": "ModeT",
    "corrmlp": "CorrMLP",
    "groupmorph": "GroupMorph",
    "rdp": "RDP",
    "lganet": "LGANet",
    "lganetpp": "LGANet++",
    "model1": "Model 1",
    "model2": "Model 2",
    "model3": "Model 3",
}
METHODS = (
    Row("before", trained=False),
    Row("syn", trained=False),
    *(Row(name, (f"model.name={name}",)) for name in NETWORKS),
)
PARTS = ("lgam", "fifm", "msfm")  # of LGANet++, in the order in which the ablation adds them
ABLATION = (
    *(
        Row(f"model{count + 1}", tuple(f"model.{part}=false" for part in PARTS[count:]))
        for count in range(3)
    ),
    METHODS[-1],
)
TARGETS = {
    target.name: target
    for target in (
        Target("table1", "LPBA40, all methods", "lpba40", METHODS, ("metrics.png",)),
        Target("table2", "IXI, all methods", "ixi", METHODS, ("metrics.png",)),
        Target("table3", "OASIS, all methods", "oasis", METHODS, ("metrics.png",)),
        Target("table4", "lung CT, all methods", "lung_ct", METHODS, ("metrics.png",)),
        Target("table5", "abdomen CT-MR, all methods", "abdomen_ct_mr", METHODS, ("metrics.png",)),
        Target("table6", "ablation on LPBA40", "lpba40", ABLATION, ("metrics.png",)),
        Target("figure5", "slices of LPBA40", "lpba40", METHODS, ("slices.png",)),
        Target("figure6", "slices of lung CT", "lung_ct", METHODS, ("slices.png",)),
        Target("figure7", "slices of abdomen CT-MR", "abdomen_ct_mr", METHODS, ("slices.png",)),
        Target("figure8", "flows at each level", "lpba40", METHODS[-1:], ("levels.png",)),
        Target("figure9", "Dice of each label on LPBA40", "lpba40", METHODS, ("labels.png",)),
    )
}
