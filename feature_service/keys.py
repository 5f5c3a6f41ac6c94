"""Names every key in Redis and how long it lives. Knows no value and no connection.

    {p<nr>}:v          counter of the partition's user versions; never goes back
    {p<nr>}:u:<id>     a user: profile and history window
    {p<nr>}:s:<id>     the user's seen set
    {p<nr>}:t:<hash>   tombstone of a deleted user; by a hash, so that his id is forgotten
    {m}:epoch          random id of this data set
    {m}:evaluation     present once rows were imported that evaluations hold out
    {m}:catalogue      pointer: which catalogue is current, its version and size
    {m}:c:<id>:rows    hash of a catalogue: number -> movie
    {m}:c:<id>:changed sorted set of a catalogue: number by the version of its last change

The braces are hash tags: everything that one script touches lies in one slot of a cluster. No key expires yet; user
rows carry an expires_at of their own, so that an expired user can be told from one who never was.
"""

import hashlib
from dataclasses import dataclass

# Fixed for good: a user's partition is computed from it. 64 scripts a call are cheap, 64 shards are many.
NUM_PARTITIONS = 64

EPOCH = b"{m}:epoch"
NOT_FOR_EVALUATION = b"{m}:evaluation"
CATALOGUE = b"{m}:catalogue"


@dataclass(frozen=True, slots=True)
class UserKeys:
    """Where one user's values lie.

    Attributes:
        partition: 0 to 63, a stable hash of the id.
        state: Key of profile and history.
        tombstone: Key of what a deletion leaves.
        seen: Key of the seen set.
    """

    partition: int
    state: bytes
    tombstone: bytes
    seen: bytes


def user_keys(user_id: str) -> UserKeys:
    """Returns the keys of a user."""
    name = user_id.encode()
    digest = hashlib.blake2b(name, digest_size=24, person=b"marquee user").digest()
    partition = int.from_bytes(digest[:8], "little") % NUM_PARTITIONS
    tag = b"{p%d}:" % partition
    return UserKeys(partition, tag + b"u:" + name, tag + b"t:" + digest[8:].hex().encode(), tag + b"s:" + name)


def version_counter(partition: int) -> bytes:
    """Returns the key of a partition's version counter."""
    return b"{p%d}:v" % partition


def movie_rows(catalogue_id: str) -> bytes:
    """Returns the key of a catalogue's movies."""
    return b"{m}:c:%s:rows" % catalogue_id.encode()


def movie_changes(catalogue_id: str) -> bytes:
    """Returns the key that says when each movie of a catalogue last changed."""
    return b"{m}:c:%s:changed" % catalogue_id.encode()
