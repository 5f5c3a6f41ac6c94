"""What all parts of the store share: its marks (epoch, format, a restore under way), and user versions.

Knows no user, movie or event.
"""

import secrets
from collections.abc import Sequence
from functools import lru_cache

from feature_service import keys
from feature_service.redis_link import RedisLink
from feature_service.value_format import STATE_FORMAT, CataloguePointer, FormatError, pack_pointer, unpack_pointer
from service_runtime.errors import Unavailable

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

    async def require_usable(self) -> None:
        """Finds out whether requests may be answered from this data set, and notes that this build writes to it.

        Raises:
            FormatError: A newer build wrote to it.
            Unavailable: It is being restored.
        """
        form, restoring = await self._link.read((keys.FORMAT, keys.RESTORING))
        if restoring is not None:
            raise Unavailable(
                "a backup is being restored, or that was broken off: then restore it again",
                reason="RESTORING",
                retry_after_s=5.0,
            )
        known = int(form or 0)
        if known > STATE_FORMAT:
            raise FormatError(
                f"a newer build wrote to this store: it has format {known}, this build knows up to {STATE_FORMAT}"
            )
        if known < STATE_FORMAT:
            await self._link.command("SET", keys.FORMAT, STATE_FORMAT)

    async def renew_epoch(self) -> str:
        """Gives the data set a new epoch, for it is an older one: former versions and positions mean nothing."""
        epoch = secrets.token_hex(8)
        await self._link.command("SET", keys.EPOCH, epoch)
        return epoch

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
    return version_prefixes(epoch)[partition] + str(counter)


@lru_cache(maxsize=8)
def version_prefixes(epoch: str) -> tuple[str, ...]:
    """Returns with what the user versions of each partition begin; the counter follows."""
    return tuple(f"{epoch}.{partition}." for partition in range(keys.NUM_PARTITIONS))
