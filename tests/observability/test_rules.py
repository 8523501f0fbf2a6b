"""The alerts: each fires when it should and is silent when it should be, and says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from clinic_local import cli
from clinic_local.monitoring import Monitoring
from typer.main import get_command

from .queries import RULE_TESTS, RULES, RUNBOOKS, alerts

SEVERITIES = {"warning", "critical"}
_CAMEL = re.compile(r"\b(?:[A-Z][a-z]+){2,}\b")
_PRODUCTS = {"PostgreSQL", "RabbitMQ"}
_COMMAND = re.compile(r"`clinic ([^`]+)`")


def _promtool(monitoring: Monitoring, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [monitoring.promtool, *map(str, arguments)],
        env=monitoring.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_promtool_accepts_the_rules_and_the_configuration(monitoring: Monitoring) -> None:
    checked = _promtool(monitoring, "check", "rules", *sorted(RULES.glob("*.yml")))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    checked = _promtool(monitoring, "check", "config", RULES.parent / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", sorted(RULE_TESTS.glob("*.yml")), ids=lambda file: file.stem)
def test_alerts_fire_and_are_silent_as_they_should(monitoring: Monitoring, file: Path) -> None:
    tested = _promtool(monitoring, "test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_that_is_wrong_fails_its_test(monitoring: Monitoring, tmp_path: Path) -> None:
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
        for file in (RULES.parent / folder).glob("*.yml"):
            text = file.read_text(encoding="utf-8").replace(
                "(clinic_timers_overdue) > 0", "(clinic_timers_overdue) > 9"
            )
            (tmp_path / folder / file.name).write_text(text, encoding="utf-8")
    tested = _promtool(monitoring, "test", "rules", tmp_path / "tests" / "obligations.yml")
    assert tested.returncode != 0
    assert "TimersOverdue" in tested.stdout + tested.stderr


def test_every_alert_is_tested_both_ways() -> None:
    names = [
        test["name"]
        for file in RULE_TESTS.glob("*.yml")
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
    ]
    for alert in alerts():
        assert f"{alert['alert']} fires" in names
        assert f"{alert['alert']} is silent" in names


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in SEVERITIES
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"deploy/runbooks/{alert['alert']}.md"


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(names) == len(set(names))
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(names)


def test_runbooks_name_commands_options_and_alerts_that_exist() -> None:
    names = {alert["alert"] for alert in alerts()}
    for page in RUNBOOKS.glob("*.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        for line in _COMMAND.findall(text):
            _assert_command_exists(line.split(), page.name)
        in_prose = re.sub("`[^`]*`", "", text)
        assert set(_CAMEL.findall(in_prose)) - _PRODUCTS <= names, page.name


def _assert_command_exists(words: list[str], page: str) -> None:
    command: Any = get_command(cli.build())
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
        elif word.startswith("--"):
            assert word in {option for parameter in command.params for option in parameter.opts}, page
        else:
            assert not getattr(command, "commands", {}) or not word.isalpha(), f"{page}: {word}"
