"""An operator sees what answers, why batches leave, what is dropped, and where the time goes."""

import asyncio
import json

import grpc
import pytest
from marquee.v1 import model_service_pb2

from tests.scraping import Scrape, read_page, scrape


@pytest.fixture
async def observed(start, train, unused_tcp_port):
    """A stub of a service that answers from checkpoint v1, and what reads its metrics."""
    train("v1")
    address = f"127.0.0.1:{unused_tcp_port}"

    async def read() -> Scrape:
        return await asyncio.to_thread(scrape, address)

    async with start(metrics_listen=address) as stub:
        yield stub, read


def top_k(user_id: str) -> model_service_pb2.TopKRequest:
    return model_service_pb2.TopKRequest(user=model_service_pb2.UserSelector(user_id=user_id), k=2)


async def test_the_model_and_the_catalogue_are_told(observed):
    """Version, kind and role as information; the catalogue by version and size."""
    _, read = observed

    found = await read()

    assert found.total("marquee_model_resident_info", version="v1", model="hand-made", role="serving") == 1
    assert found.total("marquee_model_catalogue_movies") == 5
    assert found.total("marquee_model_serving_data_timestamp_seconds") == 1_500_000_000
    assert found.total("marquee_model_refused_versions") == 0
    assert found.total("marquee_process_dependency_ready", dependency="checkpoint") == 1


async def test_a_request_is_seen_in_each_stage(observed):
    """One that finds the device idle: it waits, leaves in a batch of its own, reads one user, and is scored."""
    stub, read = observed

    await stub.TopK(top_k("ann"))

    found = await read()
    assert found.total("marquee_model_batches_total", reason="idle") == 1
    assert found.total("marquee_model_queue_wait_seconds_count", priority="interactive") == 1
    assert found.total("marquee_model_batch_rows_sum") == 1
    assert found.total("marquee_model_batch_duration_seconds_count") == 1
    assert found.total("marquee_model_feature_read_duration_seconds_count") == 1
    assert found.total("marquee_model_feature_read_users_total") == 1
    assert found.total("marquee_model_work_duration_seconds_count", thread="device") == 1
    assert found.total("marquee_model_work_duration_seconds_count", thread="loading", work="load") == 1
    assert found.total("marquee_rpc_finished_total", method="TopK", code="OK") == 1


async def test_a_slow_request_says_where_its_time_went(start, train, unused_tcp_port):
    """How long it waited, how long its batch took, and with how many it shared it."""
    train("v1")
    address = f"127.0.0.1:{unused_tcp_port}"
    async with start(metrics_listen=address, slow_request_ms=0.001) as stub:
        await stub.TopK(top_k("ann"))

        page = json.loads(await asyncio.to_thread(read_page, address, "/slow"))

    (notes,) = [kept["notes"] for kept in page["requests"] if kept["method"].endswith("/TopK")]
    assert set(notes) == {"queue_wait_s", "batch_s", "batch_rows"}
    assert notes["batch_rows"] == 1
    assert "ann" not in json.dumps(page)


async def test_a_read_that_fails_is_counted_by_why(observed, features):
    """The reason is the one that callers are told; this one tries more than once."""
    stub, read = observed
    features.is_off = True

    with pytest.raises(grpc.aio.AioRpcError):
        await stub.TopK(top_k("ann"))

    found = await read()
    num_refused = found.total("marquee_rpc_finished_total", method="TopK", code="UNAVAILABLE")
    assert num_refused >= 1
    assert found.total("marquee_model_feature_read_failures_total", reason="FEATURE_SERVICE_UNAVAILABLE") == num_refused


async def test_a_version_that_is_refused_is_counted(start, train, unused_tcp_port):
    """What is wrong with it is the admin service's to tell; that there is one, an alert's."""
    train("v1")
    address = f"127.0.0.1:{unused_tcp_port}"
    async with start(metrics_listen=address):
        folder = train("v2")
        (folder / "manifest.json").write_text("{}")

        async with asyncio.timeout(30):
            while True:
                found = await asyncio.to_thread(scrape, address)
                if found.total("marquee_model_refused_versions"):
                    break
                await asyncio.sleep(0.05)

        assert found.total("marquee_model_resident_info", version="v1", role="serving") == 1
