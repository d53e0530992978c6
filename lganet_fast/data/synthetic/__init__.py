"""Pairs of images made at random: label maps, deformations, contrasts, and the flow between them.

In the way of SynthMorph (Hoffmann et al., IEEE TMI 2022): a network that has seen only such pairs
has seen no contrast in particular. Needs no data but the MNI152 template that nilearn ships.
"""

from __future__ import annotations

from .pairs import Pair, SyntheticPairs, draw

__all__ = ["Pair", "SyntheticPairs", "draw"]
