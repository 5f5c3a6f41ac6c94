"""feature_service with a bug that no other test asks for, to show that the fuzzer finds such. Run it as a module."""

from typing import Any

from marquee.v1 import feature_service_pb2

from feature_service.__main__ import main
from feature_service.handlers import FeatureHandlers
from service_runtime.server import Call

_right = FeatureHandlers.batch_get_users


async def _wrong(self: FeatureHandlers, request: Any, call: Call) -> Any:
    reply = await _right(self, request, call)
    # Only where columns are asked for and no history: sound, documented, and rare.
    if request.HasField("history_limit") and request.view == feature_service_pb2.USER_VIEW_COLUMNS:
        assert len(request.user_ids) / request.history_limit > 0
    return reply


if __name__ == "__main__":
    FeatureHandlers.batch_get_users = _wrong  # type: ignore[method-assign]
    main()
