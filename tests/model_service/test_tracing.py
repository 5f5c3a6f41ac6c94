"""A caller's trace goes through the batch that answers him to the read of the store."""

import asyncio

from marquee.v1 import model_service_pb2

from tests.scraping import scrape
from tests.service_runtime.otlp_collector import collecting

TRACE_IDS = ("0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c")
TOP_K = "marquee.v1.ModelService/TopK"
READ = "marquee.v1.FeatureService/BatchGetUsers"


def ask(model, user_id: str, trace_id: str):
    user = model_service_pb2.UserSelector(user_id=user_id)
    metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
    return model.TopK(model_service_pb2.TopKRequest(user=user, k=2), metadata=metadata)


async def until(address: str, name: str, wanted: float) -> None:
    """Waits until a metric has a value."""
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(scrape, address)).total(name) != wanted:
            pass


async def test_a_trace_passes_the_batch_and_the_read_below_it(start, train):
    """Call, batch, read: each below the one before, all in the caller's trace."""
    train("v1")
    with collecting() as collector:
        async with start(traces_endpoint=collector.endpoint, traces_sample_ratio=0.0) as model:
            await ask(model, "ann", TRACE_IDS[0])

    spans = {span.name: span for _, span in collector.spans}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_IDS[0]}
    assert spans["batch"].parent_span_id == spans[TOP_K].span_id
    assert spans[READ].parent_span_id == spans["batch"].span_id
    assert {service for service, _ in collector.spans} == {"model_service"}


async def test_a_batch_of_two_callers_is_found_from_both_traces(start, train, features, unused_tcp_port):
    """It stands in the trace of the first and links to the call of the second."""
    train("v1")
    address = f"127.0.0.1:{unused_tcp_port}"
    with collecting() as collector:
        async with start(
            traces_endpoint=collector.endpoint,
            traces_sample_ratio=0.0,
            metrics_listen=address,
            max_batches_in_flight=1,
        ) as model:
            features.gate.clear()
            asked = [asyncio.ensure_future(ask(model, "cid", "2" * 32))]
            await until(address, "marquee_model_batches_in_flight", 1)
            asked.append(asyncio.ensure_future(ask(model, "ann", TRACE_IDS[0])))
            asked.append(asyncio.ensure_future(ask(model, "bob", TRACE_IDS[1])))
            await until(address, "marquee_model_waiting_rows", 2)
            features.gate.set()
            await asyncio.gather(*asked)

    (shared,) = [span for _, span in collector.spans if span.name == "batch" and span.links]
    assert {shared.trace_id.hex(), shared.links[0].trace_id.hex()} == set(TRACE_IDS)


async def test_a_caller_without_a_trace_is_in_nobody_elses(start, train):
    """What is read for him stands in no trace, although a traced call went before."""
    train("v1")
    with collecting() as collector:
        async with start(traces_endpoint=collector.endpoint, traces_sample_ratio=0.0) as model:
            await ask(model, "ann", TRACE_IDS[0])
            user = model_service_pb2.UserSelector(user_id="bob")
            await model.TopK(model_service_pb2.TopKRequest(user=user, k=2))

    assert sorted(span.name for _, span in collector.spans) == sorted([TOP_K, "batch", READ])
