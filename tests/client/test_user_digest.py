"""A deleted user can be found by who still knows his id, and by nobody else."""

import pytest
from marquee.client.user_digest import user_digest

from feature_service.keys import user_keys


@pytest.mark.parametrize("user_id", ["1", "alice@example.org", "ü"])
def test_the_digest_is_the_stores(user_id: str) -> None:
    """Caller and store compute the same digits."""
    assert user_digest(user_id) == user_keys(user_id).digest.decode()
