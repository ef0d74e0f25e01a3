"""Figures: how they look, how they are saved, and the panels that several pages share.

===================  ============================================================
``palette``          sizes, colours, markers, labels
``sidecars``         saving a figure together with the hashes of its sources
``accuracy_energy``  the panel of accuracy over energy
``gains``            the panel of gains of training methods
===================  ============================================================
"""

from bnnlib.figures.palette import (
    BLACK,
    BLUE,
    FAMILIES,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    label_points,
    look,
    style,
)
from bnnlib.figures.sidecars import check_sidecars, figures_dir, save

__all__ = [
    "BLACK", "BLUE", "FAMILIES", "GREEN", "GREY", "ORANGE", "PALETTE", "PURPLE", "SKY", "VERMILLION", "YELLOW",
    "check_sidecars", "figures_dir", "label_points", "look", "save", "style",
]  # fmt: skip
