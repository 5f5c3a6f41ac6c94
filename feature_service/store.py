"""What all parts of the store share: its epoch, and user versions. Knows no user, movie or event."""

import secrets
from collections.abc import Sequence

from feature_service import keys
from feature_service.redis_link import RedisLink
from feature_service.value_format import CataloguePointer, pack_pointer, unpack_pointer

# Read with everything else, so that an answer names epoch and catalogue as of the moment of its data.
STORE_KEYS = (keys.EPOCH, keys.CATALOGUE)


class StoreMarks:
    """Makes the marks of a data set where they are missing: its epoch and its first catalogue, both random."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def ensure(self) -> tuple[str, CataloguePointer]:
        """Returns epoch and catalogue pointer; makes them in an empty Redis. Several replicas may do so at once."""
        epoch, pointer = await self._link.read(STORE_KEYS)
        if epoch is None or pointer is None:
            first = pack_pointer(CataloguePointer(secrets.token_hex(8), 0, 0))
            await self._link.commands(
                [
                    ("SET", keys.EPOCH, secrets.token_hex(8), "NX"),
                    ("SET", keys.CATALOGUE, first, "NX"),
                ]
            )
            epoch, pointer = await self._link.read(STORE_KEYS)
        if epoch is None or pointer is None:
            raise RuntimeError("the store's marks vanish as soon as they are made")
        return epoch.decode(), unpack_pointer(pointer)

    async def read(self) -> tuple[str, CataloguePointer, bool]:
        """Returns epoch, catalogue pointer, and whether rows were imported that evaluations hold out."""
        epoch, pointer, tainted = await self._link.read((*STORE_KEYS, keys.NOT_FOR_EVALUATION))
        return *(await self.resolve((epoch, pointer))), tainted is not None

    async def resolve(self, marks: Sequence[bytes | None]) -> tuple[str, CataloguePointer]:
        """Returns what the values of `STORE_KEYS` say, making the marks if Redis was emptied meanwhile."""
        epoch, pointer = marks
        if epoch is None or pointer is None:
            return await self.ensure()
        return epoch.decode(), unpack_pointer(pointer)


def user_version(epoch: str, partition: int, counter: int) -> str:
    """Returns a user version; marquee.client.user_version reads and compares them."""
    return f"{epoch}.{partition}.{counter}"
