import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.snapshot.documents import Channel
from gateway.snapshot.picture import Snapshot
from gateway.wire.subjects import Template, address_subject, meet, stream_of, subject_of

LEVELS = st.sampled_from(["a", "b", "c d", "x>y", "{p}"])
TEMPLATES = st.tuples(st.lists(LEVELS, min_size=0, max_size=4), st.booleans()).map(
    lambda made: "/".join([*(f"{{p{n}}}" if level == "{p}" else level for n, level in enumerate(made[0])),
                           *(["{rest...}"] if made[1] else [])])
).filter(bool)  # fmt: skip
SEVERAL = st.lists(TEMPLATES, max_size=8, unique_by=lambda address: Template.parse(address).subject)
ADDRESSES = st.lists(st.sampled_from(["a", "b", "c d", "x>y", ""]), min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=4).map("/".join)


def channel(address):
    return {"address": address, "stream": stream_of(address), "subject": Template.parse(address).subject}


def snapshot_of(*addresses):
    return Snapshot.from_documents({"channel": [channel(address) for address in addresses]})


def oracle(templates, address):
    """Filter level by level from the left what still matches: literals, else parameters, else rests."""

    def as_regex(template):
        levels = [
            r"[\s\S]*" if level.endswith("...}") else "[^/]+" if level.startswith("{") else re.escape(level)
            for level in template.split("/")
        ]
        return "/".join(levels)

    left = [template for template in templates if re.fullmatch(as_regex(template), address)]
    for number in range(len(address.split("/"))):
        kinds = {"literal": [], "parameter": [], "rest": []}
        for template in left:
            levels = template.split("/")
            level = levels[min(number, len(levels) - 1)]
            kind = "rest" if level.endswith("...}") else "parameter" if level.startswith("{") else "literal"
            kinds[kind].append(template)
        left = kinds["literal"] or kinds["parameter"] or kinds["rest"]
    assert len(left) <= 1
    return left[0] if left else None


@given(SEVERAL, ADDRESSES)
def test_an_address_belongs_to_the_most_specific_template(templates, address):
    snapshot = snapshot_of(*templates)
    found = snapshot.channel(address)
    assert (found and found[0].address) == oracle(templates, address)
    covering = snapshot.channel_covering(subject_of(address))
    assert (covering and covering.address) == oracle(templates, address)


@given(SEVERAL, ADDRESSES)
def test_the_rank_of_templates_decides_as_the_table_does(templates, address):
    matching = [Template.parse(one) for one in templates if Template.parse(one).covers(subject_of(address))]
    best = min(matching, key=lambda template: template.rank, default=None)
    assert (best and best.address) == oracle(templates, address)


@given(SEVERAL, ADDRESSES)
def test_the_values_of_the_parameters_make_up_the_address(templates, address):
    found = snapshot_of(*templates).channel(address)
    if found is not None:
        filled = found[0].address
        for name, value in found[1].items():
            filled = filled.replace(f"{{{name}}}", value).replace(f"{{{name}...}}", value)
        assert filled == address


@given(SEVERAL, FILTERS, st.booleans(), ADDRESSES)
def test_a_filter_meets_the_channel_of_each_address_that_it_matches(templates, levels, has_rest, address):
    subject_filter = levels.replace("/", ".").replace("+", "*") + (".>" if has_rest else "")
    snapshot = snapshot_of(*templates)
    owner = oracle(templates, address)
    if owner is not None and "" not in address.split("/") and meet(subject_filter, subject_of(address)):
        assert owner in [channel.address for channel in snapshot.channels_meeting((subject_filter,))]
    covering = snapshot.channel_covering(subject_filter)
    if covering is not None and meet(subject_filter, subject_of(address)) and "" not in address.split("/"):
        assert owner is not None


@pytest.mark.parametrize(
    ("subject_filter", "channels"),
    [
        ("a.*", ["a/b", "a/{x}"]),
        ("a.b", ["a/b"]),
        (">", ["a/b", "a/{x}", "a/{x}/c", "{all...}"]),
        ("a.*.c", ["a/{x}/c"]),
        ("z.>", ["{all...}"]),
    ],
)
def test_a_filter_meets_no_channel_whose_part_of_it_others_own(subject_filter, channels):
    snapshot = snapshot_of("{all...}", "a/{x}", "a/b", "a/{x}/c")
    assert [channel.address for channel in snapshot.channels_meeting((subject_filter,))] == channels


@pytest.mark.parametrize(
    ("subject_filter", "channel"),
    [("a.*", "a/{x}"), ("*.*", "{all...}"), ("a.>", "{all...}"), ("a.*.*", "a/{x}/{y}"), ("q.*.*", "{all...}")],
)
def test_a_reader_of_many_addresses_reads_the_most_specific_channel_that_has_them_all(subject_filter, channel):
    snapshot = snapshot_of("{all...}", "a/{x}", "a/b", "a/{x}/{y}", "a/b/{y}")
    found = snapshot.channel_covering(subject_filter)
    assert found is not None
    assert found.address == channel


def test_a_channel_of_an_earlier_version_has_no_prefix():
    old = Snapshot.from_documents({"channel": [channel("a/{x}")]}).channel("a/b")
    assert old is not None
    assert old[0].stored("a.b") == "a.b"
    new = Channel("a/{x}", stream_of("a/{x}"), "a.*", subject_prefix="_apimgmt.events.CH_1.")
    assert new.stored("a.b") == "_apimgmt.events.CH_1.a.b"
    assert address_subject(new.stored("a.b")) == "a.b"


def test_channels_come_and_go():
    snapshot = snapshot_of("a/{x}")
    snapshot.apply([("channel", "a/b", channel("a/b"))])
    assert snapshot.channel("a/b")[0].address == "a/b"
    snapshot.apply([("channel", "a/b", None)])
    assert snapshot.channel("a/b")[0].address == "a/{x}"
    assert snapshot.channel_of(stream_of("a/b")) is None
