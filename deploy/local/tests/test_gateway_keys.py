"""The gateway's key of this machine, and its public half with each service."""

import json
from pathlib import Path

from clinic_gateway.token_exchange import KEY_FILE, public_keys, read_key
from clinic_local.environment import know_gateway
from clinic_shared.internal_tokens import KEYS_FILE, read_gateway_keys


def test_every_service_knows_the_gateway_by_one_key_that_stays(tmp_path: Path) -> None:
    for service in ("identity", "patients", "identity"):
        know_gateway(tmp_path, service)
    pem = (tmp_path / "gateway" / KEY_FILE).read_bytes()
    assert read_key(tmp_path / "gateway", production=False) is not None
    for service in ("identity", "patients"):
        known = read_gateway_keys(tmp_path / service)
        assert known is not None
        assert known == json.loads(public_keys(pem))
        assert (tmp_path / service / KEYS_FILE).stat().st_mode & 0o077 == 0
        assert "d" not in known["keys"][0]
