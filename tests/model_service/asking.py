"""Asks for a rating, and waits for who answers. Knows requests; knows no checkpoint."""

import asyncio

import grpc
from marquee.v1 import model_service_pb2 as pb

ANN = pb.UserSelector(user_id="ann")


def rate(user=ANN, **selector):
    """Returns a request that may name a model."""
    return pb.PredictRatingRequest(user=user, movie_id="heat", model=pb.ModelSelector(**selector))


async def until(ask, wanted, timeout_s=10.0):
    """Asks until the answer is the wanted one."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while (answer := await ask()) != wanted:
        assert asyncio.get_running_loop().time() < deadline, f"still {answer!r}, never {wanted!r}"
        await asyncio.sleep(0.02)


async def until_served(model, version):
    """Waits until a version answers who names none."""

    async def serving():
        return (await model.PredictRating(rate())).model_version

    await until(serving, version)


async def until_named(model, **selector):
    """Waits until a request that names a model is answered."""

    async def is_answered():
        try:
            await model.PredictRating(rate(**selector))
        except grpc.aio.AioRpcError:
            return False
        return True

    await until(is_answered, True)
