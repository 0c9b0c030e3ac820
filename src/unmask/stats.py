"""Confidence intervals and quantiles, thin over SciPy."""

from __future__ import annotations


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the proportion right of count (Wilson, 1927).

    Args:
        right: how many of them were right, 0 to count.
        count: how many there are.
        confidence: the coverage, between 0 and 1.

    Returns:
        The bounds, each in [0, 1]; 0 and 1 where count is 0.
    """
    if not count:
        return 0.0, 1.0
    # Imported here, since the import takes longer than most commands that don't need it.
    from scipy.stats import binomtest

    interval = binomtest(int(right), int(count)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def student_t(df: int, confidence: float = 0.95) -> float:
    """Return the two-sided quantile of Student's t.

    Args:
        df: degrees of freedom, at least 1.
        confidence: the coverage, between 0 and 1.

    Returns:
        The half width of the interval in standard errors, such as 12.706 for df 1 at 0.95.
    """
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + confidence / 2))
