"""User versions of one user can be compared, others cannot."""

import pytest
from marquee.client.user_version import UserVersion, UserVersionError

EPOCH = "0123456789abcdef"


def test_a_version_survives_its_text():
    """What is written is what is read."""
    version = UserVersion(EPOCH, 63, 2**53 - 1)

    assert UserVersion.parse(str(version)) == version


@pytest.mark.parametrize(
    "text",
    ["", "x", f"{EPOCH}.1", f"{EPOCH}.1.-1", f"{EPOCH}.1.2 ", f"{EPOCH}.1.\u0663", f"{EPOCH[:-1]}.1.2", "Z" * 5000],
)
def test_other_text_is_refused(text):
    """Nothing is guessed from text that no service wrote."""
    with pytest.raises(UserVersionError):
        UserVersion.parse(text)


@pytest.mark.parametrize(("counter", "included"), [(4, False), (5, True), (6, True), (10, True)])
def test_newer_or_equal_includes(counter, included):
    """Counters compare as numbers."""
    assert UserVersion(EPOCH, 3, counter).includes(UserVersion(EPOCH, 3, 5)) is included


@pytest.mark.parametrize("foreign", [UserVersion("f" * 16, 3, 1), UserVersion(EPOCH, 4, 1)])
def test_a_foreign_version_is_an_error(foreign):
    """Another epoch or another partition says nothing, so nothing is answered."""
    with pytest.raises(UserVersionError):
        UserVersion(EPOCH, 3, 9).includes(foreign)
