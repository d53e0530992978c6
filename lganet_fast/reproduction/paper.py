"""The numbers of the paper that are known; the others are left empty in tables."""

from __future__ import annotations

DICE = {("lpba40", "lganetpp"): "0.735"}  # mean over its nine test subjects
PARAMETERS = {  # in units of 2^20, including those that the forward does not use
    "model1": "2.936",
    "model2": "10.225",
    "model3": "21.320",
    "lganetpp": "24.353",
}
