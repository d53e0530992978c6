"""Names of interpolations; the first of each kind is the default."""

from __future__ import annotations

OF_IMAGES = ("linear", "nearest")
OF_LABELS = ("nearest", "label")
INTERPOLATIONS = tuple(dict.fromkeys(OF_IMAGES + OF_LABELS))
