"""The filters of `angarium queue` as the API is asked for them."""

import argparse
import json

import pytest

from angarium.cli.selection import add_filters, selected


def asked(*arguments: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.set_defaults(parser=parser)
    add_filters(parser)
    return json.loads(json.dumps(selected(parser.parse_args(arguments))))["where"]


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (("--older-than", "2d"), "older_than_s", 172800.0),
        (("--younger-than", "90s"), "younger_than_s", 90.0),
        (("--larger-than", "1MiB"), "larger_than_octets", 1 << 20),
        (("--smaller-than", "500"), "smaller_than_octets", 500),
        (("--domain", "example.org"), "domain", "example.org"),
        (("--sender", "<>"), "sender", "<>"),
    ],
)
def test_each_filter_is_asked_for_in_its_unit(arguments, key, value):
    assert asked(*arguments)[key] == value


def test_no_filter_is_wrong_usage():
    with pytest.raises(SystemExit):
        asked()
