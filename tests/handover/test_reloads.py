"""Mail handed over while a reload has reached one of two workers: by what each of them was told of TLS."""

from __future__ import annotations

import pathlib

import pytest
from handover.pair import HOME, OWNER, Pair, pair
from queue_harness import run, until

from angarium.metrics import counters
from angarium.queue.shaping_options import ShapingOptions

# The next hop offers no TLS.
ANY, STRICT = ShapingOptions(connections=1), ShapingOptions(connections=1, tls="encrypt")


def reload(both: Pair, number: int, shaping: ShapingOptions) -> None:
    """As a worker applies it, in one turn of the loop."""
    name = "strict" if shaping is STRICT else "any"
    if number == OWNER:
        both.outgoing.work_by(name)
    else:
        both.incoming.work_by(name)
    scheduler = (both.owner if number == OWNER else both.home).scheduler
    scheduler.reconfigure(router=scheduler.router, pool=scheduler.pool, shaping=shaping, options=scheduler.options)


def came_back() -> int:
    (figure,) = (each for each in counters.registry() if each.name == "angarium_handover_returned_total")
    return figure.value


@pytest.mark.parametrize("first", [OWNER, HOME], ids=["owner first", "home first"])
@pytest.mark.parametrize(("old", "new"), [(ANY, STRICT), (STRICT, ANY)], ids=["stricter", "less strict"])
def test_nothing_goes_out_by_less_tls_than_one_of_two_configurations_wants(
    tmp_path: pathlib.Path, first: int, old: ShapingOptions, new: ShapingOptions
) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            for number in (OWNER, HOME):
                reload(both, number, old)
            reload(both, first, new)
            before = came_back()
            await both.owner.send("a@y.example")
            await until(lambda: came_back() >= before + 2)          # and was handed over again, as often as it takes
            assert not hop.messages and not both.owner.events("deferred", "failed")
            (declined,) = both.home.events("handover-declined")     # once, however often it comes back
            assert (declined["peer"], declined["reason"]) == ("worker 0", "planned by another configuration than ours")
            assert not both.home.scheduler.ready_queues(), "nothing is taken over of what was planned otherwise"
            reload(both, HOME if first == OWNER else OWNER, new)
            if new is ANY:
                await until(lambda: both.owner.is_empty)
                assert hop.recipients() == ["a@y.example"]
            else:
                await until(lambda: both.owner.events("deferred"))
                assert "TLS" in both.owner.events("deferred")[0]["reply"] and not hop.messages
            assert not both.owner.events("handover-broken", "error") and not both.home.events("error")
            if new is ANY:
                reload(both, first, STRICT)                 # it is told of again when it happens again
                await both.owner.send("b@y.example")
                await until(lambda: len(both.home.events("handover-declined")) == 2)

    run(test, tmp_path)


@pytest.mark.parametrize("first", [OWNER, HOME], ids=["owner", "home"])
def test_what_waits_at_the_home_when_a_reload_wants_more_goes_back_and_meets_it(
    tmp_path: pathlib.Path, first: int
) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            for number in range(10):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 10 and hop.transactions)
            reload(both, first, STRICT)
            await until(lambda: both.incoming.guest_count <= 2)     # what the connection has in hand
            hop.release()
            reload(both, HOME if first == OWNER else OWNER, STRICT)
            await until(lambda: len(hop.messages) + len(both.owner.events("deferred")) == 10)
            assert len(hop.messages) <= 2
            assert all("TLS" in line["reply"] for line in both.owner.events("deferred"))

    run(test, tmp_path)


def test_a_reload_that_delivers_alike_calls_nothing_back_at_the_home(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            for number in (OWNER, HOME):
                reload(both, number, ANY)
            hop.is_held = True
            for number in range(10):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 10 and hop.transactions)
            reload(both, HOME, ANY)
            assert both.incoming.guest_count == 10
            hop.release()
            await until(lambda: both.owner.is_empty)
            assert len(hop.messages) == 10 and not both.owner.events("deferred")

    run(test, tmp_path)
