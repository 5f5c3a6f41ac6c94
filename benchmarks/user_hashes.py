"""Keeps users as one Redis hash each, which is what one would write first. Knows redis-py; knows no figure.

A field for each of the profile's four, and one per movie: its number, and stars and time as text.
"""

from collections.abc import Iterable

import redis

from benchmarks.synthetic_users import SyntheticUsers


def key_of(user_id: str) -> str:
    """Returns the key of a user's hash."""
    return f"user:{user_id}"


def load_hashes(client: redis.Redis, users: SyntheticUsers) -> None:
    """Writes all users."""
    for block in users.blocks(100):
        pipeline = client.pipeline(transaction=False)
        columns = (block.movie_rows.tolist(), block.ratings.tolist(), block.event_times_ms.tolist())
        for user_id, profile, *history in zip(block.user_ids, block.profiles, *columns, strict=True):
            fields: dict[str, str | int] = {
                "gender": profile.gender,
                "age": profile.age,
                "occupation": profile.occupation,
                "zip": profile.zip,
            }
            for number, stars, time_ms in zip(*history, strict=True):
                fields[f"m{number}"] = f"{stars:g} {time_ms}"
            pipeline.hset(key_of(user_id), mapping=fields)  # type: ignore[arg-type]
        pipeline.execute()


def read_each(client: redis.Redis, keys: Iterable[str]) -> list[dict[bytes, bytes]]:
    """Reads users one after the other."""
    return [client.hgetall(key) for key in keys]  # type: ignore[misc]


def read_together(client: redis.Redis, keys: Iterable[str]) -> list[dict[bytes, bytes]]:
    """Reads users in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    return pipeline.execute()
