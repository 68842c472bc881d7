"""Answers end with their time; the cache never outgrows its bound."""

import msgspec

from angarium.resolver.cache import ExpiringCache


class Kept(msgspec.Struct):
    expires_mono_s: float


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_value_is_gone_once_its_time_is_up() -> None:
    clock = Clock()
    cache: ExpiringCache[str, Kept] = ExpiringCache(10, clock)
    cache.put("a", Kept(110.0))
    clock.now = 109.9
    assert cache.get("a") is not None
    clock.now = 110.0
    assert cache.get("a") is None
    assert len(cache) == 0


def test_least_recently_used_goes_first() -> None:
    cache: ExpiringCache[str, Kept] = ExpiringCache(2, Clock())
    cache.put("a", Kept(110.0))
    cache.put("b", Kept(110.0))
    cache.get("a")
    cache.put("c", Kept(110.0))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert len(cache) == 2


def test_newer_value_replaces_the_older() -> None:
    cache: ExpiringCache[str, Kept] = ExpiringCache(2, Clock())
    cache.put("a", Kept(110.0))
    cache.put("a", Kept(120.0))
    assert cache.get("a") == Kept(120.0)
    assert len(cache) == 1
