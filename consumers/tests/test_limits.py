import pytest
from django.core.exceptions import ValidationError

from consumers.limits import clean_limits


def test_omitted_fields_have_their_documented_defaults():
    assert clean_limits([{"metric": "requests", "amount": 10, "per": 60}]) == [
        {
            "metric": "requests",
            "amount": 10,
            "per": 60,
            "burst": 10,
            "scope": "consumer",
            "exceed": "reject",
            "mode": "enforce",
            "close_at": 20,
            "fail": "open",
        }
    ]


def test_cleaning_twice_changes_nothing():
    once = clean_limits([{"metric": "bytes_in", "amount": 1.5, "per": "month"}, {"metric": "open_jobs", "amount": 3}])
    assert clean_limits(once) == once


def test_a_monthly_quota_and_what_counts_while_open_have_no_seconds():
    quota, slots = clean_limits(
        [{"metric": "requests", "amount": 5, "per": "month"}, {"metric": "open_connections", "amount": 2}]
    )
    assert (quota["per"], slots["per"]) == ("month", None)


def test_one_metric_may_be_limited_over_two_spans_and_by_two_scopes():
    base = {"metric": "requests", "amount": 5, "per": 1}
    assert len(clean_limits([base, base | {"per": 60}, base | {"scope": "ip"}])) == 3


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        ({"amount": 1, "per": 1}, "limits[0].metric"),
        ({"metric": "nonsense", "amount": 1, "per": 1}, "limits[0].metric"),
        ({"metric": ["requests"], "amount": 1, "per": 1}, "limits[0].metric"),
        ({"metric": "requests", "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": 0, "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": -1, "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": True, "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": "10", "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": 10**400, "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": float("inf"), "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": float("nan"), "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": 1}, "limits[0].per"),
        ({"metric": "requests", "amount": 1, "per": 0}, "limits[0].per"),
        ({"metric": "requests", "amount": 1, "per": -5}, "limits[0].per"),
        ({"metric": "requests", "amount": 1, "per": "year"}, "limits[0].per"),
        ({"metric": "requests", "amount": 1, "per": 10**9}, "limits[0].per"),
        ({"metric": "open_connections", "amount": 1.5}, "limits[0].amount"),
        ({"metric": "requests", "amount": 5, "per": "month", "burst": 3}, "limits[0].burst"),
        ({"metric": "requests", "amount": 5, "per": "month", "burst": 10}, "limits[0].burst"),
        ({"metric": "open_connections", "amount": 1, "per": 5}, "limits[0].per"),
        ({"metric": "open_jobs", "amount": 1, "scope": "connection"}, "limits[0].scope"),
        ({"metric": "requests", "amount": 1, "per": 1, "burst": 0}, "limits[0].burst"),
        ({"metric": "requests", "amount": 1, "per": 1, "close_at": -1}, "limits[0].close_at"),
        ({"metric": "requests", "amount": 1, "per": 1, "close_at": False}, "limits[0].close_at"),
        ({"metric": "requests", "amount": 5e-324, "per": 1}, "limits[0].amount"),
        ({"metric": "requests", "amount": 1, "per": 1e-300}, "limits[0].per"),
        ({"metric": "requests", "amount": 1, "per": 1, "scope": "planet"}, "limits[0].scope"),
        ({"metric": "requests", "amount": 1, "per": 1, "scope": ""}, "limits[0].scope"),
        ({"metric": "requests", "amount": 1, "per": 1, "exceed": "explode"}, "limits[0].exceed"),
        ({"metric": "requests", "amount": 1, "per": 1, "mode": "off"}, "limits[0].mode"),
        ({"metric": "requests", "amount": 1, "per": 1, "fail": "maybe"}, "limits[0].fail"),
        ({"metric": "requests", "amount": 1, "per": 1, "color": "red"}, "limits[0].color"),
        ("requests", "limits[0]"),
    ],
)
def test_an_error_names_its_field(limit, field):
    with pytest.raises(ValidationError) as fault:
        clean_limits([limit])
    assert list(fault.value.message_dict) == [field]


@pytest.mark.parametrize("limits", [None, "requests", {"metric": "requests"}, [{}] * 51])
def test_limits_are_a_list_of_bounded_length(limits):
    with pytest.raises(ValidationError) as fault:
        clean_limits(limits)
    assert list(fault.value.message_dict) == ["limits"]


def test_the_same_limit_twice_is_refused():
    limit = {"metric": "requests", "amount": 1, "per": 1}
    with pytest.raises(ValidationError) as fault:
        clean_limits([limit, limit | {"amount": 2}])
    assert list(fault.value.message_dict) == ["limits[1]"]


def test_a_limit_may_never_close():
    assert clean_limits([{"metric": "requests", "amount": 1, "per": 1, "close_at": 0}])[0]["close_at"] == 0
