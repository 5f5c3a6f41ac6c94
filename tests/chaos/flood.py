"""Asks model_service more than it can answer, from a process of its own: python -m tests.chaos.flood ADDRESS SECONDS.

Prints what became of the calls, by status and reason, as JSON. Knows the contract; retries nothing.
"""

import asyncio
import json
import sys
import time
from collections import Counter

import grpc
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

CALLERS = 400
USERS_A_CALL = 200
TIMEOUT_S = 2.0
ANSWERED = "answered"


async def flood(address: str, seconds: float) -> Counter[tuple[str, str]]:
    """Calls as fast as it is answered, and faster: hundreds of callers, who come back at once."""
    outcomes: Counter[tuple[str, str]] = Counter()
    users = [pb.UserSelector(user_id=f"flood-{number}") for number in range(USERS_A_CALL)]
    request = pb.BatchTopKRequest(users=users, k=50)
    until = time.monotonic() + seconds
    async with open_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        stub = ModelServiceStub(channel)

        async def call_on() -> None:
            while time.monotonic() < until:
                try:
                    reply = await stub.BatchTopK(request, timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    failure = read_error(error)
                    outcomes[failure.code.name, failure.reason] += 1
                else:
                    assert len(reply.results) == USERS_A_CALL
                    outcomes[ANSWERED, ""] += 1

        await asyncio.gather(*(call_on() for _ in range(CALLERS)))
    return outcomes


if __name__ == "__main__":
    found = asyncio.run(flood(sys.argv[1], float(sys.argv[2])))
    print(json.dumps([(code, reason, count) for (code, reason), count in found.items()]))
