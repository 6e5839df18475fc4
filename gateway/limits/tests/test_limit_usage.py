from gateway.limits import tallies as limit_usage
from gateway.limits.counters import Counter
from gateway.limits.tallies import Level, LimitUsage, near
from gateway.snapshot.picture import Limit, Metric

LIMIT = Limit(Metric.REQUESTS, 10, 10, 10)
OPEN = Limit(Metric.OPEN_JOBS, 4, scope="key")


def test_what_was_counted_is_told_once():
    usage = LimitUsage()
    for _ in range(3):
        usage.refused(LIMIT, "acme")
    usage.shadowed(LIMIT, "bolt")
    usage.let_through(LIMIT, "acme", 4.5)
    reported = {record["consumer"]: record for record in usage.take([])}
    assert (reported["acme"]["refused"], reported["acme"]["shadowed"], reported["acme"]["unshared"]) == (3, 0, 4.5)
    assert (reported["bolt"]["refused"], reported["bolt"]["shadowed"]) == (0, 1)
    assert reported["acme"]["name"] == "requests-per-10s"
    assert usage.take([]) == []


def test_policies_in_shadow_are_told_with_their_route_and_reason():
    usage = LimitUsage()
    usage.policy_shadowed("acme", "orders", "validate", "invalid-payload")
    usage.policy_shadowed("", "orders", "jwt", "unauthenticated")
    reported = usage.take([])
    assert [(record["consumer"], record["name"], record["route"], record["reason"]) for record in reported] == [
        ("acme", "validate", "orders", "invalid-payload"),
        ("", "jwt", "orders", "unauthenticated"),
    ]


def test_a_flood_of_names_costs_no_memory_and_is_said(monkeypatch, caplog):
    monkeypatch.setattr(limit_usage, "KINDS_MAX", 2)
    usage = LimitUsage()
    for number in range(5):
        usage.refused(LIMIT, f"c{number}")
    assert len(usage.take([])) == 2
    assert "3 counts" in caplog.text
    caplog.clear()
    usage.take([])
    assert not caplog.records


def test_levels_from_half_on_are_told_the_fullest_first():
    counters = [Counter(LIMIT, f"k{number}", f"c{number}") for number in range(3)]
    for counter, spent in zip(counters, (2, 6, 9), strict=True):
        counter.take(spent, 0.0)
    levels = near(Level.of(counter, 0.0) for counter in [*counters, counters[2]])
    assert [level.consumer for level in levels] == ["c2", "c1"]
    reported = LimitUsage().take(levels)
    assert [(record["level"], record["left"]) for record in reported] == [(0.9, 1), (0.6, 4)]


def test_of_several_budgets_under_one_name_the_fullest_is_told_beside_what_was_counted():
    usage = LimitUsage()
    usage.refused(OPEN, "acme")
    reported = usage.take([Level(OPEN, key, "acme", left, 4, None) for key, left in (("k1", 2), ("k2", 1), ("k3", 2))])
    assert [(each["refused"], each["level"], each["left"], each["resets_at"]) for each in reported] == [
        (1, 0.75, 1, None)
    ]
