"""What the gateway reads from its environment and from files."""

from pathlib import Path

import pytest
from clinic_gateway.settings import GatewaySettings
from pydantic import ValidationError

ISSUER = {"CLINIC_TOKEN_ISSUER": "https://clinic.example.org"}


def test_a_secret_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "clinic_amqp_url").write_text("amqp://clinic:from-a-file@mq/\n", encoding="utf-8")
    environ = {"CLINIC_SECRETS_DIR": str(tmp_path), "CLINIC_HTTP_PORT": "8099"}
    settings = GatewaySettings.from_environ(environ)
    assert settings.amqp_url is not None
    assert settings.amqp_url.get_secret_value() == "amqp://clinic:from-a-file@mq/"
    assert settings.http_port == 8099
    told = GatewaySettings.from_environ({**environ, "CLINIC_AMQP_URL": "amqp://clinic:told@mq/"})
    assert told.amqp_url is not None
    assert "told" in told.amqp_url.get_secret_value()


@pytest.mark.parametrize("name", ["CLINIC_ENV", "CLINIC_ENVIRONMENT"])
def test_production_refuses_development_secrets(name: str) -> None:
    environ = {name: "production", "CLINIC_AMQP_URL": "amqp://guest:guest@mq/", **ISSUER}
    with pytest.raises(ValidationError, match="CLINIC_AMQP_URL") as refused:
        GatewaySettings.from_environ(environ)
    assert "guest" not in str(refused.value)
    assert GatewaySettings.from_environ({name: "production", **ISSUER}).environment == "production"


def test_production_needs_an_issuer() -> None:
    with pytest.raises(ValidationError, match="CLINIC_TOKEN_ISSUER"):
        GatewaySettings.from_environ({"CLINIC_ENV": "production"})
