"""The dot product model with biases of a published notebook: ratings are sigmoid(p·q + b_u + b_i), stretched to stars.

See `trainer.fits.dot_bias` for how it is trained.
"""

from typing import ClassVar

from two_tower.models.factor_tables import FactorTables


class DotBias(FactorTables):
    """The tables, 50 coordinates wide there."""

    name: ClassVar[str] = "dot-bias"
