"""The table of this folder's README speaks of tests that exist, and of every case once."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", README, flags=re.MULTILINE)
_TEST = re.compile(r"`([\w/.-]+\.py)(?:::(\w+))?`")


def test_every_case_stands_once_in_its_order() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 131))


@pytest.mark.parametrize(
    ("number", "answer"), [(n, answer) for n, _, answer in ROWS], ids=[n for n, _, _ in ROWS]
)
def test_a_case_has_tests_that_exist_or_a_reason(number: str, answer: str) -> None:
    named = _TEST.findall(answer)
    assert named or answer.startswith(("Not ", "No ")), number
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{file}::{test}"
