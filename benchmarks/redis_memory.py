"""How many bytes does a user take in Redis, beside one hash a user and beside Feast's layout, of the same data?

    make feast && python benchmarks/redis_memory.py [--users 5000]

Users with 10, 50 and 200 events, and some who watched 5,000 movies, of whose history the newest 200 are kept. What
counts is what `used_memory` of a real Redis grows by, divided by users: keys, values and what Redis needs around them.
Measured without expiry, and with: ours by FEATURE_PROFILE_TTL_S and FEATURE_HISTORY_TTL_S, the others by EXPIRE on each
key, which is what the key_ttl_seconds of Feast does.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from marquee.client.channel import open_sync_channel
from marquee.v1 import feature_service_pb2_grpc

from benchmarks.bulk_load import load_histories, load_movies, load_profiles
from benchmarks.feast_store import load_feast
from benchmarks.record import record
from benchmarks.store_processes import RunningRedis, feature_service, redis_server
from benchmarks.synthetic_users import SyntheticUsers
from benchmarks.user_hashes import load_hashes

FOLDER = Path(".run/redis_memory")
WATCHED = (10, 50, 200, 5000)
NUM_MOVIES = 10_000
YEAR_S = 365 * 86_400


def ours(users: SyntheticUsers, folder: Path, ttl_s: int) -> int:
    """Returns the bytes that our layout takes; the catalogue is not counted."""
    settings = {"FEATURE_PROFILE_TTL_S": str(ttl_s), "FEATURE_HISTORY_TTL_S": str(ttl_s)}
    with (
        redis_server(folder / "redis", append_only=False) as running,
        running.client() as client,
        feature_service(running, folder / "feature_service.log", settings) as service,
        open_sync_channel(service.address) as channel,
    ):
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        load_movies(stub, users)
        before = _used(client)
        load_profiles(stub, users, lambda _: None)
        load_histories(stub, users, lambda _: None)
        return _used(client) - before


def theirs(load: Callable[[RunningRedis], None], folder: Path) -> tuple[int, int]:
    """Returns the bytes that another layout takes, without expiry and with."""
    with redis_server(folder / "redis", append_only=False) as running, running.client() as client:
        before = _used(client)
        load(running)
        without = _used(client) - before
        for key in client.scan_iter(count=10_000):
            client.expire(key, YEAR_S)
        return without, _used(client) - before


def _used(client: redis.Redis) -> int:
    # The buffers of the connection that loaded are no part of the data.
    client.memory_purge()
    overhead: int = client.info("memory")["mem_clients_normal"]
    used: int = client.info("memory")["used_memory"]
    return used - overhead


def compare(users: SyntheticUsers, folder: Path) -> dict[str, Any]:
    """Returns bytes a user by layout, without expiry and with."""
    hashes = theirs(lambda running: load_hashes(running.client(), users), folder / "hashes")
    feast = theirs(lambda running: load_feast(users, folder / "feast-repository", running.port), folder / "feast")
    own = (ours(users, folder / "ours", 0), ours(users, folder / "ours-with-ttl", YEAR_S))
    return {
        name: {"bytes_per_user": round(without / users.num_users), "with_ttl": round(with_ttl / users.num_users)}
        for name, (without, with_ttl) in (("marquee", own), ("one hash a user", hashes), ("feast", feast))
    }


def main() -> None:
    """Measures, and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=5000, help="a tenth of them who watched 5,000 movies")
    given = parser.parse_args()
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    found: dict[str, Any] = {}
    for watched in WATCHED:
        num_users = given.users if watched <= 200 else given.users // 10
        found[str(watched)] = compare(SyntheticUsers(num_users, watched, NUM_MOVIES), FOLDER / str(watched))
        print(watched, found[str(watched)], flush=True)
    with redis_server(FOLDER / "version", append_only=False) as running, running.client() as client:
        version = f"{client.info('server')['redis_version']}, {client.info('memory')['mem_allocator']}"
    figures = {"redis": version, "users": given.users, "movies": NUM_MOVIES, "watched": found}
    print(record("redis_memory", figures))


if __name__ == "__main__":
    main()
