"""Which envelope is the message, and which outcome holds. Segments are fed newest first."""

from angarium.spool.resolution import OutcomePlace, Resolution

A, B = 0x006B04B519000001, 0x006B04B519000002


def test_the_youngest_copy_is_the_message_and_older_ones_are_stale() -> None:
    resolution = Resolution([1, 2, 3])
    assert resolution.take(A, 3)
    assert not resolution.take(A, 1)
    assert resolution.take(B, 1)


def test_freed_counts_for_the_copy_whose_home_it_names() -> None:
    resolution = Resolution([1, 2, 3])
    resolution.note_freed(A, 1)
    assert resolution.take(A, 2), "the copy in 2 lives"
    assert not resolution.take(A, 1)

    resolution = Resolution([1, 2, 3])
    resolution.note_freed(A, 2)
    assert not resolution.take(A, 2)
    assert resolution.take(A, 1), "the older copy was never freed"


def test_a_message_with_all_copies_freed_is_over() -> None:
    resolution = Resolution([1, 2])
    resolution.note_freed(A, 2)
    resolution.note_freed(A, 1)
    assert not resolution.take(A, 2)
    assert not resolution.take(A, 1)
    assert resolution.is_freed(A, 1) and not resolution.is_freed(B, 1)


def test_what_is_said_about_a_segment_that_is_gone_concerns_nobody() -> None:
    resolution = Resolution([2])
    resolution.note_freed(A, 1)
    assert not resolution.is_freed(A, 1)


def test_the_outcome_of_the_youngest_segment_holds_and_in_it_the_last() -> None:
    resolution = Resolution([1, 2, 3])
    for place in (OutcomePlace(3, 4096, 10), OutcomePlace(3, 8192, 11), OutcomePlace(2, 12288, 12)):
        resolution.note_outcome(A, place)
    assert resolution.outcome(A) == OutcomePlace(3, 8192, 11)
    assert resolution.outcome(B) is None


def test_an_outcome_holds_for_the_copy_though_it_was_written_for_the_original() -> None:
    resolution = Resolution([1, 2, 3])
    resolution.note_outcome(A, OutcomePlace(2, 4096, 10))
    assert resolution.take(A, 3)
    assert resolution.outcome(A) == OutcomePlace(2, 4096, 10)
