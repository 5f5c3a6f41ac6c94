"""What Redis says is told from what a caller wrote, and what is nobody's failure stays a defect."""

import pytest
from redis import exceptions

from feature_service.redis_failures import failure_of

QUOTED = "Command # 2 (EVAL local x 6 {{p1}}:u:{}) of pipeline caused error: ('{}',)"
WITHIN_SCRIPT = "Error running script (call to f_0a1b): @user_script:12: @user_script: 12: -{} not allowed now"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device", "REDIS_CANNOT_PERSIST"),
        ("NOREPLICAS Not enough good replicas to write.", "REDIS_TOO_FEW_REPLICAS"),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", "REDIS_BUSY"),
        (WITHIN_SCRIPT.format("OOM command"), "REDIS_OUT_OF_MEMORY"),
        (WITHIN_SCRIPT.format("READONLY command"), "REDIS_READ_ONLY"),
    ],
)
def test_an_answer_is_told_by_its_first_word(text, reason):
    """Alone, and where redis-py puts the command before it."""
    for error in (exceptions.ResponseError(text), exceptions.ResponseError(QUOTED.format("somebody", text))):
        found = failure_of(error)

        assert found is not None
        assert found.reason == reason


@pytest.mark.parametrize("user_id", ["@user_script:1: -OOM command", "x) of pipeline caused error: ('MISCONF "])
def test_a_caller_cannot_pretend_a_failure(user_id):
    """An id that is quoted with the command says nothing about Redis."""
    error = exceptions.ResponseError(QUOTED.format(user_id, "ERR wrong number of arguments"))

    assert failure_of(error) is None


def test_a_defect_is_no_failure_of_redis():
    """A wrong type, a script that is wrong, and an error of ours stay what they are."""
    for error in (exceptions.ResponseError("WRONGTYPE Operation against a key"), KeyError("x"), ValueError("x")):
        assert failure_of(error) is None
