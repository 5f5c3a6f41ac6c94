"""Matrix factorisation of centred ratings, a published notebook's: mean + user mean + movie mean + dot product.

The notebook trained the dot product on what the means leave over and never added them back; a served rating needs them.
See `trainer.fits.mf_centred` for how it is trained.
"""

from typing import ClassVar

from two_tower.models.factor_tables import FactorTables


class MfCentred(FactorTables):
    """The tables, 2 coordinates wide there, so that `movies.vectors` is a map; the biases are the means."""

    name: ClassVar[str] = "mf-centred"
