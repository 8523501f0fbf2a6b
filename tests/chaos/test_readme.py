"""The table of traps: each has a test, and the test exists."""

import ast
import re
from pathlib import Path

from clinic_local.paths import CHECKOUT

TRAPS = [*(f"P{n}" for n in range(1, 14)), *(f"D{n}" for n in range(1, 8))]
_ROW = re.compile(r"^\| ([PD]\d+) \|.*\| `([^`]+)::([^`]+)` \|$", re.MULTILINE)


def test_each_trap_has_a_test_that_exists() -> None:
    rows = _ROW.findall(Path(__file__).with_name("README.md").read_text(encoding="utf-8"))
    assert [trap for trap, _, _ in rows] == TRAPS
    for trap, file, test in rows:
        tree = ast.parse(Path(CHECKOUT, file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert test in names, f"{trap}: {file} has no {test}"
