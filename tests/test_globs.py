import pytest

from lightning_nc.globs import deeper_advice, matching

NAMES = ["", "conv1", "layer1", "layer1.0", "layer1.0.relu", "layer1.1", "layer12", "relu", "a[0]"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("layer1", ["layer1"]),
        ("layer1.*", ["layer1.0", "layer1.1"]),
        ("layer1.**", ["layer1.0", "layer1.0.relu", "layer1.1"]),
        ("layer*", ["layer1", "layer12"]),
        ("*", ["", "conv1", "layer1", "layer12", "relu", "a[0]"]),
        ("**", NAMES),
        ("*.*", ["layer1.0", "layer1.1"]),
        ("*.relu", []),
        ("**relu", ["layer1.0.relu", "relu"]),
        ("**.relu", ["layer1.0.relu"]),
        ("layer1***relu", ["layer1.0.relu"]),
        ("layer1?0", []),
        ("layer1.?", ["layer1.0", "layer1.1"]),
        ("layer1[.]0", []),
        ("layer1[!x]0", []),
        ("layer1[--/]0", []),  # a range in which the dot is
        ("*[!1]", ["layer12", "relu", "a[0]"]),
        ("layer1.[0-9]", ["layer1.0", "layer1.1"]),
        ("layer1.[]1]", ["layer1.1"]),
        ("layer1.[1-0]", []),  # a range that holds nothing
        ("layer1.[0", []),
        ("a[0]", ["a[0]"]),  # names come first
        ("a[[]0]", ["a[0]"]),
        ("layer1\n", []),
        ("LAYER1", []),
    ],
)
def test_stars_stop_at_a_dot_unless_there_are_two(pattern, found):
    assert matching(pattern, NAMES) == found


def test_what_two_stars_would_match_is_shown():
    advice = deeper_advice("*.relu", NAMES)
    assert "'**.relu' matches 'layer1.0.relu'." in advice
    many = [f"block.{i}.relu" for i in range(5)]
    assert "'block.1.relu', 'block.2.relu' and 2 more." in deeper_advice("block.*relu", many)


@pytest.mark.parametrize("pattern", ["zzz.*", "layer1?0", "**.zzz", "reluu"])
def test_no_advice_where_two_stars_would_match_nothing_either(pattern):
    assert deeper_advice(pattern, NAMES) == ""
