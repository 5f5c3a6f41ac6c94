"""Who a caller is: from arguments, from the environment, from files that are renewed."""

from pathlib import Path

import pytest
from marquee.client.channel import open_sync_channel
from marquee.client.credentials import Credentials, CredentialsError

CANARY = "canary-token"


def test_a_token_does_not_leave_this_machine_in_the_clear():
    """Unless its owner says that something else encrypts."""
    with pytest.raises(CredentialsError, match="over TLS only") as raised:
        open_sync_channel("features.example:50051", credentials=Credentials(token=CANARY))

    assert CANARY not in str(raised.value)
    open_sync_channel("features.example:50051", credentials=Credentials(token=CANARY, token_in_clear=True)).close()


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"MARQUEE_TLS_CA": "x"}, "MARQUEE_TLS_CA means nothing; known are"),
        ({"MARQUEE_TOKENS": CANARY}, "MARQUEE_TOKENS means nothing"),
        ({"MARQUEE_TLS": "yes"}, "MARQUEE_TLS must be true or false"),
        ({"MARQUEE_TLS_CERT_FILE": "x"}, "a certificate and its key belong together"),
        ({"MARQUEE_TLS": "false", "MARQUEE_TOKEN": CANARY, "MARQUEE_TOKEN_FILE": "x"}, "one is enough"),
    ],
)
def test_the_environment_of_a_caller_is_checked(environment, problem):
    """A misspelt variable is an error, and no error quotes a token."""
    with pytest.raises(CredentialsError, match=problem) as raised:
        Credentials.from_environment(environment=environment)

    assert CANARY not in str(raised.value)


def test_the_environment_says_who_a_caller_is():
    """A file of certificates implies TLS; a token is in no text that stands for the credentials."""
    given = Credentials.from_environment(
        environment={"MARQUEE_TLS_CA_FILE": "/ca.pem", "MARQUEE_TOKEN": CANARY, "MARQUEE_DATA": "x", "PATH": "x"}
    )

    assert given == Credentials(tls=True, ca_file=Path("/ca.pem"), token=CANARY)
    assert CANARY not in repr(given)


def test_a_callers_token_is_renewed_from_its_file(tmp_path):
    """Within a second; a file that is broken for a moment changes nothing."""
    file = tmp_path / "token"
    file.write_text("one\n")
    token = Credentials(token_file=file).token_for("127.0.0.1:1")
    assert token is not None
    now = 100.0
    token._clock = lambda: now
    file.write_text("two\n")
    now = 1e9
    second = token.header
    file.write_text("two words\n")
    now = 2e9

    assert (second, token.header) == ("Bearer two", "Bearer two")
