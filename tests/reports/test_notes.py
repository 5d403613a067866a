"""Notes that repeat are one line."""

from pipelines.reports.notes import listed, merged_notes, merged_over


def test_equal_notes_are_one_that_names_the_streams():
    """Streams of the same datasets stand together; other sentences stay by themselves, in order."""
    notes = [
        ("a/image", "one", "slow"),
        ("b/text", "one", "cut"),
        ("c/audio", "one", "slow"),
        ("a/image", "two", "slow"),
        ("", "one", "skipped video"),
        ("", "two", "skipped video"),
    ]
    assert merged_notes(notes) == [
        "a/image of one, two; c/audio of one: slow",
        "b/text of one: cut",
        "one, two: skipped video",
    ]


def test_shares_that_differ_become_a_range():
    """The bottleneck of several streams is one line, with the smallest and the largest share."""
    notes = [(name, "d", f"encoding took {n}% of the time") for name, n in (("a", 43), ("b", 5))]
    assert merged_notes(notes) == ["a, b of d: encoding took 5–43% of the time"]
    assert merged_notes(notes[:1]) == ["a of d: encoding took 43% of the time"]


def test_notes_that_differ_in_the_dataset_alone_name_all():
    """Whether or not the name stands in them."""
    notes = [
        ("x/1", "no table of x/1"),
        ("x/1", "same"),
        ("x/2", "no table of x/2"),
        ("x/2", "same"),
    ]
    assert merged_over(notes) == ["no table of x/1, x/2", "same"]


def test_long_lists_are_cut():
    """Six names and how many more; one more than six is named."""
    assert listed("abca") == "a, b, c"
    assert listed("abcdefg") == "a, b, c, d, e, f, g"
    assert listed("abcdefghi") == "a, b, c, d, e, f and 3 more"
