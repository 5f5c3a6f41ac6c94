"""Who a caller is: from arguments, from the environment, from files that are renewed."""

from itertools import count
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
        ({"MARQUEE_TLS_CERT_FILE": "x"}, "^MARQUEE_TLS_KEY_FILE is missing: .* MARQUEE_TLS_CERT_FILE is set"),
        ({"MARQUEE_TLS_KEY_FILE": "x"}, "^MARQUEE_TLS_CERT_FILE is missing: .* MARQUEE_TLS_KEY_FILE is set"),
        (
            {"MARQUEE_TLS": "false", "MARQUEE_TOKEN": CANARY, "MARQUEE_TOKEN_FILE": "x"},
            "^MARQUEE_TOKEN and MARQUEE_TOKEN_FILE are both set: one is enough",
        ),
    ],
)
def test_the_environment_of_a_caller_is_checked(environment, problem):
    """A misspelt variable is an error, and no error quotes a token."""
    with pytest.raises(CredentialsError, match=problem) as raised:
        Credentials.from_environment(environment=environment)

    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"TLS_CA_FILE": "/none"}, "^MINE_TLS_CA_FILE: /none cannot be read: No such file or directory"),
        ({"TLS_CERT_FILE": "{text}", "TLS_KEY_FILE": "{text}"}, "^MINE_TLS_KEY_FILE: .*text is not in PEM"),
        ({"TOKEN_FILE": "/none"}, "^MINE_TOKEN_FILE: .* over TLS only; set MINE_TLS, or MINE_TOKEN_IN_CLEAR"),
        ({"TOKEN_FILE": "{text}", "TLS": "true"}, "^MINE_TOKEN_FILE: .*text must hold one token"),
    ],
)
def test_what_turns_up_with_the_first_channel_names_the_variable_too(tmp_path, environment, problem):
    """A person knows which of his variables to change, and to what."""
    (tmp_path / "text").write_text("no certificate")
    given = {f"MINE_{name}": value.format(text=tmp_path / "text") for name, value in environment.items()}
    credentials = Credentials.from_environment("MINE_", given)

    with pytest.raises(CredentialsError, match=problem):
        open_sync_channel("features.example:50051", credentials=credentials)


def test_the_environment_says_who_a_caller_is():
    """A file of certificates implies TLS; a token is in no text that stands for the credentials."""
    given = Credentials.from_environment(
        environment={"MARQUEE_TLS_CA_FILE": "/ca.pem", "MARQUEE_TOKEN": CANARY, "MARQUEE_DATA": "x", "PATH": "x"}
    )

    assert given == Credentials(tls=True, ca_file=Path("/ca.pem"), token=CANARY)
    assert CANARY not in repr(given)


def renewed_token(tmp_path):
    """Returns a token that looks at its file whenever it is asked, and the file, which holds the word `one`."""
    file = tmp_path / "token"
    file.write_text("one\n")
    token = Credentials(token_file=file).token_for("127.0.0.1:1")
    assert token is not None
    seconds = count(1e9, 10.0)
    token._clock = lambda: next(seconds)
    return token, file


def test_a_callers_token_is_renewed_from_its_file(tmp_path):
    """Within a second; a file that is broken for a moment changes nothing."""
    token, file = renewed_token(tmp_path)
    file.write_text("two\n")
    second = token.header
    file.write_text("two words\n")
    broken = token.header
    file.write_text("three\n")

    assert (second, broken, token.header) == ("Bearer two", "Bearer two", "Bearer three")


def test_a_token_that_cannot_be_renewed_is_told_of_once(tmp_path, caplog):
    """The last good one goes on; the log names the file each time that something else is wrong, and no token."""
    token, file = renewed_token(tmp_path)
    file.write_text(f"{CANARY} {CANARY}")
    garbled = [token.header for _ in range(3)]
    file.unlink()
    gone = [token.header for _ in range(3)]
    file.write_text("two\n")
    good = token.header
    file.unlink()
    gone_again = token.header

    assert {*garbled, *gone} == {"Bearer one"}
    assert (good, gone_again) == ("Bearer two", "Bearer two")
    told = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert all(str(file) in line and CANARY not in line for line in told)
    assert ["cannot be read" in line for line in told] == [False, True, True]


@pytest.mark.parametrize("content", [None, b"", b"two words", "Schlüssel".encode(), b"\x01", b"\xff\xfe"])
def test_a_token_that_was_never_readable_is_an_error(tmp_path, content):
    """There is no last good one: who opens a channel is told which file, and what would be right."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(
        CredentialsError, match="cannot be read" if content is None else "must hold one token"
    ) as raised:
        open_sync_channel("127.0.0.1:1", credentials=Credentials(token_file=file))

    assert str(file) in str(raised.value)


@pytest.mark.parametrize("token", ["two words", "line\n", "Schlüssel", "\x01"])
def test_a_token_that_no_header_could_carry_is_an_error(token):
    """Before the first call rather than at each, and without quoting it."""
    with pytest.raises(CredentialsError, match=r"^token must be one word of printable ASCII") as raised:
        Credentials(token=token)

    assert token not in str(raised.value)
