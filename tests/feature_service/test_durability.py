"""What the store promises is what Redis is set to do."""

import pytest

from feature_service.durability import describe_durability

pytestmark = pytest.mark.usefixtures("one_server")


@pytest.mark.parametrize(
    ("settings", "promise"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, "a power loss loses nothing"),
        ({"appendonly": "yes", "appendfsync": "always"}, "a killed Redis loses nothing;"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "up to two seconds while its disk syncs slowly"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "the last second"),
        ({"appendonly": "no", "save": ""}, "everything is lost when Redis ends"),
        ({"appendonly": "no", "save": "60 1"}, "since its last snapshot"),
        ({"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}, "deletes users (allkeys-lru)"),
    ],
)
async def test_the_promise_follows_the_settings(link, raw_redis, settings, promise):
    """Each way to keep data, and the one to lose it unnoticed, is named."""
    before = {name: raw_redis.config_get(name)[name] for name in settings}
    try:
        for name, value in settings.items():
            raw_redis.config_set(name, value)

        assert promise in await describe_durability(link)
    finally:
        for name, value in before.items():
            raw_redis.config_set(name, value)
