"""Bars that a scanner reads: against a symbol that was worked out by hand."""

from itertools import pairwise

import pytest
from clinic_lab_integration.code128 import bars, width


def test_a_number_as_bars() -> None:
    # Start B, "A" (33), check (104 + 33) mod 103 = 34, stop.
    widths = [w for _, w in bars("A")]
    assert widths == [2, 1, 1, 1, 1, 2, 1, 1, 2, 2, 3, 1, 2]
    assert width("A") == 11 * 3 + 13


def test_bars_never_touch() -> None:
    drawn = bars("PC-0123456789AZ")
    for (position, wide), (following, _) in pairwise(drawn):
        assert position + wide < following


def test_what_has_no_bars_is_refused() -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        bars("Ж")
