"""Ends tasks that run beside calls. Knows tasks; knows nothing of what they do."""

import asyncio
from contextlib import suppress
from typing import Any

_AGAIN_AFTER_S = 1.0


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels a task, again and again until it has ended; raises what it failed with.

    Until Python 3.12 `asyncio.wait_for` returns a result that comes in the same moment and forgets the cancellation
    (https://github.com/python/cpython/issues/86296), and redis-py waits so for every command that it sends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_AFTER_S)
    with suppress(asyncio.CancelledError):
        task.result()


def require_going_on() -> None:
    """Raises CancelledError in a task that was cancelled, though a wait that it made forgot it; see `end`."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
