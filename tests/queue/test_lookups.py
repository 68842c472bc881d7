"""Whose domain is looked up next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angarium.queue.lookups import Lookups


def drain(lookups: Lookups, limit: int = 10_000) -> list[object]:
    """All that may be looked up now."""
    found: list[object] = []
    while len(found) < limit and (domain := lookups.next()) is not None:
        found.append(domain)
    return found


def test_one_tenant_leaves_slots_to_others():
    lookups = Lookups(slots=9)
    for number in range(100):
        lookups.add(f"cold{number}", b"bulk", 0)
    assert len(drain(lookups)) == 6
    lookups.add("bank", b"shop", 0)
    assert lookups.next() == "bank"
    for number in range(100):
        lookups.add(f"other{number}", b"second", 0)
    assert drain(lookups), "a third one finds a slot, too"
    lookups.add("tiny", b"fourth", 0)
    assert lookups.next() is None or len(lookups) < 195


def test_lines_of_a_tenant_take_turns():
    lookups = Lookups(slots=300)
    for number in range(100):
        lookups.add(f"cold{number}", b"shop", "newsletter")
    lookups.add("bank", b"shop", "reset")
    assert "bank" in [lookups.next(), lookups.next()]


def test_a_domain_that_two_wait_for_is_looked_up_once_and_for_the_first_whose_turn_it_is():
    lookups = Lookups(slots=300)
    for number in range(100):
        lookups.add(f"cold{number}", b"bulk", 0)
    assert lookups.add("cold99", b"shop", 0)
    assert not lookups.add("cold99", b"shop", 0)
    assert drain(lookups, 2) == ["cold0", "cold99"]
    assert not lookups.add("cold99", b"third", 0), "it is being looked up"
    assert sorted(map(str, drain(lookups))) == sorted(f"cold{number}" for number in range(1, 99))
    lookups.ended("cold99")
    assert lookups.add("cold99", b"shop", 0)
    assert lookups.next() == "cold99"


def test_a_domain_that_stands_in_line_from_a_look_up_of_another_is_looked_up_again():
    lookups = Lookups(slots=2)
    lookups.add("bank", b"a", 0)
    lookups.add("first", b"b", 0)
    lookups.add("bank", b"b", 0)
    assert drain(lookups) == ["bank", "first"]
    lookups.ended("bank")
    assert lookups.add("bank", b"b", 0)
    assert drain(lookups) == ["bank"]
    assert not len(lookups)


def test_much_that_is_stale_is_passed_in_pieces():
    lookups = Lookups(slots=3000)
    for number in range(1200):
        lookups.add(number, b"bulk", 0)
    for number in range(1200):
        lookups.add(number, b"shop", 0)
    seen = []
    for _ in range(20):
        seen += drain(lookups)
        for domain in seen:
            if domain in lookups._asked:
                lookups.ended(domain)
        if not lookups.is_cut_short and not len(lookups):
            break
    assert sorted(seen) == list(range(1200))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 30), st.integers(0, 3)), max_size=200
    ),
    st.integers(1, 12),
)
def test_whoever_waits_is_looked_up_once_and_slots_are_kept(steps, slots):
    """Never more than the slots; whoever was added is looked up behind it, and nobody twice at once."""
    lookups = Lookups(slots)
    asked: list[int] = []
    waiting: set[int] = set()
    for tenant, line, domain, what in steps:
        if what == 0 and asked:
            lookups.ended(asked.pop(0))
        elif domain not in asked:
            lookups.add(domain, tenant.encode(), line)
            waiting.add(domain)
        if (found := lookups.next()) is not None:
            assert found not in asked
            assert found in waiting
            waiting.discard(found)
            asked.append(found)
        assert len(asked) <= slots
        assert len(lookups) == len(waiting)
    for _ in range(1000):
        if not waiting and not asked:
            break
        while (found := lookups.next()) is not None:
            waiting.discard(found)
            asked.append(found)
        if asked:
            lookups.ended(asked.pop(0))
    assert not waiting
    assert not lookups._tenants or all(tenant.lines for tenant in lookups._tenants.values())


def test_who_is_parked_takes_no_slot_and_is_looked_up_again_behind_that():
    lookups = Lookups(slots=3)
    for name in ("slow", "second", "third"):
        lookups.add(name, b"bulk", 0)
    assert drain(lookups) == ["slow", "second"]
    lookups.park("slow")
    assert not lookups.add("slow", b"bulk", 0) and not lookups.add("slow", b"shop", 1), "it is on its way"
    assert drain(lookups) == ["third"]
    lookups.back("slow")
    assert drain(lookups) == []
    for name in ("second", "third"):
        lookups.ended(name)
    assert drain(lookups) == ["slow"]
    lookups.ended("slow")
    assert not lookups._tenants and not lookups._parked and not len(lookups)
