"""Decides who is answered by a model on trial. Knows user ids and shares; knows no model."""

from hashlib import blake2b

_HASH_BYTES = 8


def is_among(user_id: str, version: str, percent: float) -> bool:
    """Tells whether a user belongs to the share of users on whom a version is tried.

    The same for every replica and for as long as the trial lasts; a larger share contains the smaller one, and another
    version is tried on other users.

    Args:
        user_id: External id.
        version: The version on trial.
        percent: Its share, 0 to 100.
    """
    digest = blake2b(f"{version}\0{user_id}".encode(), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") < percent / 100 * (1 << 8 * _HASH_BYTES)
