"""Tells Prometheus what the near cache does. Knows its numbers and their names; knows no user and no tensor."""

from typing import Any

from model_service.near_answers import NearAnswers
from model_service.near_cache import NearCache
from model_service.near_features import NearFeatures
from model_service.near_lists import NearLists
from model_service.near_pairs import NearPairs
from service_runtime.metrics import Metrics


def tell_near_cache(metrics: Metrics, cache: NearCache[Any], features: NearFeatures) -> None:
    """Defines the metrics of the near cache; they are read at each scrape."""
    metrics.counter_of(
        "near_cache_lookups",
        "Users looked up near: hit, miss, or bypass (too old for the caller, or nothing may be kept now).",
        lambda: {(outcome.value,): count for outcome, count in cache.counts.items()},
        ["outcome"],
    )
    metrics.counter_of(
        "near_cache_resets",
        "How often everything near was let go of: the feed of changes was lost or begun, or the store was replaced.",
        lambda: {(): cache.num_resets},
    )
    metrics.counter_of(
        "near_cache_embeddings",
        "Users who were answered from near as embedded before (taken), or were embedded and kept so (made).",
        lambda: {("taken",): features.num_embedded_taken, ("made",): features.num_embedded_made},
        ["how"],
    )
    metrics.gauge_of("near_cache_users", "Users that are kept near.", lambda: {(): len(cache)})
    metrics.gauge_of("near_cache_size_bytes", "What they take of memory.", lambda: {(): cache.size_bytes})
    metrics.gauge_of("near_cache_limit_bytes", "What they may take; 0 keeps none.", lambda: {(): cache.max_bytes})
    metrics.gauge_of(
        "near_cache_live",
        "1 while the feed of changes is live; else nothing is kept and every user is read for every batch.",
        lambda: {(): int(cache.is_live)},
    )


def tell_answers_at_once(metrics: Metrics, answers: NearAnswers, pairs: NearPairs, lists: NearLists) -> None:
    """Lets Prometheus see how many requests needed no batch."""
    metrics.counter_of(
        "answers_at_once",
        "Requests about one user who was near and embedded, answered without a batch.",
        lambda: {(): answers.num_given + pairs.num_given + lists.num_given},
    )
    metrics.counter_of(
        "answers_held",
        "Requests for one rating or list that were held for a moment to be given together, while the service was busy.",
        lambda: {(): pairs.held.num_held + lists.held.num_held},
    )
