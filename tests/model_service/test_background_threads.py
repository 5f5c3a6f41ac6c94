"""Who leaves does not wait for what is made in the background."""

import threading

from model_service.background_threads import background_thread


def test_leaving_waits_for_no_work_and_drops_what_has_not_begun():
    """The one thread is at something when its context is left, and something else is waiting for it."""
    begun, released, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        released.wait(30)
        ended.set()

    with background_thread("indexing") as thread:
        thread.submit(work)
        waiting = thread.submit(work)
        assert begun.wait(30)

    was_at_work = not ended.is_set()
    released.set()
    assert was_at_work
    assert waiting.cancelled()
