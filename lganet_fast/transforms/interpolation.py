"""How a volume is read between its voxels, by name; the first of each kind is the usual one."""

from __future__ import annotations

OF_IMAGES = ("linear", "nearest")
OF_LABELS = ("nearest", "label")
INTERPOLATIONS = tuple(dict.fromkeys(OF_IMAGES + OF_LABELS))
