from hypothesis import given
from hypothesis import strategies as st

from unmask.web.limits import MINUTE, RateLimiter


def test_a_burst_of_a_quarter_then_one_at_a_time() -> None:
    limiter = RateLimiter(60)
    assert [limiter.admit("a", 0.0) for _ in range(15)] == [0.0] * 15
    assert limiter.admit("a", 0.0) == 1.0
    assert limiter.admit("a", 0.25) == 0.75
    assert limiter.admit("a", 1.0) == 0.0
    assert limiter.admit("a", 1.0) == 1.0


def test_clients_do_not_share() -> None:
    limiter = RateLimiter(4)
    assert limiter.admit("a", 0.0) == 0.0
    assert limiter.admit("a", 0.0) > 0
    assert limiter.admit("b", 0.0) == 0.0


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(0)
    assert {limiter.admit("a", 0.0) for _ in range(1000)} == {0.0}


@given(st.integers(1, 300), st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=300))
def test_never_more_than_the_burst_and_the_rate(rate: int, waits: list[float]) -> None:
    limiter, now, admitted = RateLimiter(rate), 0.0, 0
    for wait in waits:
        now += wait
        admitted += limiter.admit("a", now) == 0
    assert admitted <= max(1, rate / 4) + rate * (now - waits[0]) / MINUTE + 1e-6


def test_what_is_remembered_of_clients_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("unmask.web.limits._CLIENTS", 3)
    limiter = RateLimiter(4)
    for name in "abcdefgh":
        limiter.admit(name, 0.0)
    assert len(limiter._left) == 3
