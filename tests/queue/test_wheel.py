"""The timer wheel against a sorted list: every alarm fires once, never early, at most two ticks late."""

import gc
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from angarium.queue.wheel import Alarm, Wheel

# Delays around every level's border: 256 ticks, 65,536 ticks, 16.7 million ticks.
delays_s = st.one_of(
    st.floats(0, 1), st.floats(25, 27), st.floats(6550, 6560), st.floats(0, 400_000), st.floats(1_677_700, 1_677_800)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(delays_s, st.booleans()), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_alarms_fire_once_never_early_and_at_most_two_ticks_late(plan, random):
    wheel = Wheel()
    passed_ms = 0
    fired: dict[int, int] = {}
    alarms = []
    for number, (delay, is_disarmed) in enumerate(plan):
        alarm = Alarm(wheel, lambda number=number: fired.__setitem__(number, passed_ms))
        alarm.arm(delay)
        alarms.append((alarm, delay, is_disarmed))
    for alarm, _, is_disarmed in alarms:
        if is_disarmed:
            alarm.disarm()
    for _ in range(40):
        step = random.choice([90, 100, 25_600, 6_553_600, 200_000_000])
        passed_ms += step
        before = set(fired)
        wheel.advance_by_ms(step)
        for number in set(fired) - before:
            assert plan[number][0] * 1000 <= passed_ms + 1
    for number, (_, delay, is_disarmed) in enumerate(alarms):
        due = delay * 1000 + 300 < passed_ms
        if is_disarmed:
            assert number not in fired
        elif due:
            assert number in fired
    assert wheel.count == sum(1 for n, (_, _, off) in enumerate(alarms) if not off and n not in fired)


def test_an_alarm_armed_again_fires_at_the_new_time_only():
    wheel = Wheel()
    calls = []
    alarm = Alarm(wheel, lambda: calls.append(1))
    alarm.arm(1.0)
    alarm.arm(60.0)
    wheel.advance_by_ms(2_000)
    assert calls == []
    wheel.advance_by_ms(59_000)
    assert calls == [1]
    assert wheel.count == 0


def test_a_callback_may_arm_itself_again_without_holding_the_wheel():
    wheel = Wheel()
    calls = []

    def again() -> None:
        calls.append(1)
        alarm.arm(0)

    alarm = Alarm(wheel, again)
    alarm.arm(0)
    for turn in range(1, 5):
        wheel.advance_by_ms(1_000)
        assert len(calls) == turn


def test_a_dropped_alarm_leaves_the_wheel():
    wheel = Wheel()
    alarm = Alarm(wheel, lambda: None)
    alarm.arm(5)
    del alarm
    assert wheel.count == 0
    wheel.advance_by_ms(10_000)


class Turns:
    """A loop that only remembers what it was asked to call."""

    def __init__(self):
        self.soon = []

    def call_later(self, _, callback):
        return self

    def call_soon(self, callback):
        self.soon.append(callback)
        return self


def test_many_alarms_due_at_once_are_spread_over_turns():
    for delay_s in (1.0, 30.0, 7000.0):
        loop = Turns()
        wheel = Wheel(loop)
        fired: list[int] = []
        alarms = [Alarm(wheel, partial(fired.append, 1)) for _ in range(9000)]
        for alarm in alarms:
            alarm.arm(delay_s)
        disarmed = alarms[::9]
        wheel.pass_ms(int(delay_s * 1000) + 200)
        largest = 0
        wheel.turn()
        while loop.soon:
            before = len(fired)
            loop.soon.pop()()
            largest = max(largest, len(fired) - before)
            for alarm in disarmed:  # while the rest is on its way through the levels
                alarm.disarm()
        assert largest <= 2000
        assert len(alarms) - len(disarmed) <= len(fired) <= len(alarms)
        assert wheel.count == 0


def test_an_armed_alarm_that_is_garbage_leaves_its_wheel() -> None:
    wheel = Wheel()
    owners: list[dict[str, Alarm]] = [{} for _ in range(100)]
    for owner in owners:
        # The collector sees a dict from when it holds something: behind its alarm, which is therefore cleared first.
        owner["alarm"] = Alarm(wheel, owner.clear)
        owner["alarm"].arm(10)
    assert wheel.count == 100
    del owner
    owners.clear()
    gc.collect()
    assert wheel.count == 0
    wheel.advance_by_ms(20_000)
