"""Names every key in Redis and how long it lives. Knows no value and no connection.

    {p<nr>}:v          counter of the partition's user versions; never goes back
    {p<nr>}:u:<id>     a user: profile and history window
    {p<nr>}:s:<id>     the user's seen set
    {p<nr>}:t:<hash>   tombstone of a deleted user; by a hash, so that his id is forgotten
    {p<nr>}:n          position of the newest entry of the partition's event log; never goes back
    {p<nr>}:log        event log of the partition, a stream whose ids are its positions
    {m}:exports        hash: name of who exports events -> the positions up to which he has them
    {m}:epoch          random id of this data set
    {m}:format         newest format of a user's state that a build which wrote to it knows
    {m}:restoring      present while a backup is being restored: which one
    {m}:rewriting      hash: server -> how far rewriting users in the newest format has got
    {m}:evaluation     present once rows were imported that evaluations hold out
    {m}:catalogue      pointer: which catalogue is current, its version and size
    {m}:scale          which ratings there are; absent while nobody told it
    {m}:c:<id>:rows    hash of a catalogue: number -> movie
    {m}:c:<id>:changed sorted set of a catalogue: number by the version of its last change

The braces are hash tags: everything that one script touches lies in one slot of a cluster. States and seen sets expire
if they are told to; user rows carry times of expiry of their own, which come earlier, so that an expired user can be
told from one who never was.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

# Fixed for good: a user's partition is computed from it. 64 scripts a call are cheap, 64 shards are many.
NUM_PARTITIONS = 64

EPOCH = b"{m}:epoch"
FORMAT = b"{m}:format"
RESTORING = b"{m}:restoring"
REWRITING = b"{m}:rewriting"
NOT_FOR_EVALUATION = b"{m}:evaluation"
CATALOGUE = b"{m}:catalogue"
EXPORTS = b"{m}:exports"
RATING_SCALE = b"{m}:scale"

_HASH = hashlib.blake2b(digest_size=24, person=b"marquee user")
_STATES = tuple(b"{p%d}:u:" % partition for partition in range(NUM_PARTITIONS))
_SEEN = tuple(b"{p%d}:s:" % partition for partition in range(NUM_PARTITIONS))
_TOMBSTONES = tuple(b"{p%d}:t:" % partition for partition in range(NUM_PARTITIONS))


class UserKeys(NamedTuple):
    """Where one user's values lie.

    Attributes:
        partition: 0 to 63, a stable hash of the id.
        state: Key of profile and history.
        tombstone: Key of what a deletion leaves.
        seen: Key of the seen set.
        digest: What stands for the id where the id itself must not be kept: 32 hexadecimal digits.
    """

    partition: int
    state: bytes
    tombstone: bytes
    seen: bytes
    digest: bytes


def user_keys(user_id: str) -> UserKeys:
    """Returns the keys of a user."""
    name = user_id.encode()
    digest = _digest(name)
    partition = digest[0] % NUM_PARTITIONS
    hidden = digest[8:].hex().encode()
    return UserKeys(
        partition, _STATES[partition] + name, _TOMBSTONES[partition] + hidden, _SEEN[partition] + name, hidden
    )


def read_keys(user_ids: Sequence[str]) -> tuple[list[int], list[bytes], list[bytes]]:
    """Returns the partitions of users, and the keys of their states and of their seen sets: what a read needs."""
    partitions, states, seen = [], [], []
    begin = _HASH.copy
    for user_id in user_ids:
        name = user_id.encode()
        made = begin()
        made.update(name)
        partition = made.digest()[0] % NUM_PARTITIONS
        partitions.append(partition)
        states.append(_STATES[partition] + name)
        seen.append(_SEEN[partition] + name)
    return partitions, states, seen


def _digest(name: bytes) -> bytes:
    # Its first 8 bytes, little-endian, modulo 64 are the partition, which the first byte alone decides. A copy of a
    # hash costs a third of making one.
    made = _HASH.copy()
    made.update(name)
    return made.digest()


def user_of(state_key: bytes) -> str | None:
    """Returns the user whose state lies at a key, None if it is another kind of key."""
    tag, _, name = state_key.partition(b":u:")
    return name.decode() if name and tag.startswith(b"{p") else None


def followed_prefixes() -> list[bytes]:
    """Returns with what the keys begin whose changes are told: users' states, the catalogue and the epoch.

    Every change of a user rewrites his state, also one of his seen set, and his deletion drops it.
    """
    return [*_STATES, CATALOGUE, EPOCH]


def version_counter(partition: int) -> bytes:
    """Returns the key of a partition's version counter."""
    return b"{p%d}:v" % partition


def log_position(partition: int) -> bytes:
    """Returns the key of the position of a partition's newest log entry."""
    return b"{p%d}:n" % partition


def event_log(partition: int) -> bytes:
    """Returns the key of a partition's event log."""
    return b"{p%d}:log" % partition


def movie_rows(catalogue_id: str) -> bytes:
    """Returns the key of a catalogue's movies."""
    return b"{m}:c:%s:rows" % catalogue_id.encode()


def movie_changes(catalogue_id: str) -> bytes:
    """Returns the key that says when each movie of a catalogue last changed."""
    return b"{m}:c:%s:changed" % catalogue_id.encode()
