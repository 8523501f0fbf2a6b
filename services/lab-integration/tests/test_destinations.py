"""Where laboratories are sent orders and calls: not to addresses of this network that nobody has named."""

from typing import Any

import pytest
from clinic_lab_integration import callbacks
from clinic_lab_integration.settings import LabSettings
from clinic_shared.destinations import DestinationRefusedError

from .conftest import Laboratory

ADMIN = "system-administrator"


async def configure(lab: Laboratory, kind: str, url: str) -> Any:
    path = f"/v1/lab/partners/{lab.partner_id}"
    if kind == "callback":
        return await lab.lab.http.put(path, json={"callback_url": url}, headers=lab.headers(ADMIN))
    body = {"format": "oml-o21", "url": url}
    return await lab.lab.http.put(f"{path}/order-destination", json=body, headers=lab.headers(ADMIN))


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("callback", "https://10.0.0.1/calls"),
        ("callback", "https://169.254.169.254/latest"),
        ("callback", "https://2130706433/calls"),
        ("order", "mllp://10.0.0.1:2575"),
        ("order", "http://[::ffff:10.0.0.1]/hl7"),
    ],
)
async def test_nothing_is_sent_inside_and_no_such_address_is_configured(
    lab: Laboratory, kind: str, url: str
) -> None:
    answer = await configure(lab, kind, url)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/laboratory-address-refused")


async def test_a_call_that_was_to_go_inside_before_the_rule_is_not_made(lab: Laboratory) -> None:
    async with callbacks.client_of(lab.lab.runtime) as http:
        for url in ("https://10.0.0.1/calls", "http://[::ffff:10.0.0.1]/calls"):
            with pytest.raises(DestinationRefusedError):
                await http.post(url, content=b"{}")


async def test_in_production_this_machine_is_inside_too(lab: Laboratory) -> None:
    production = LabSettings.model_construct(environment="production", laboratory_networks="10.20.0.0/16")
    for url in ("https://127.0.0.1/calls", "mllp://127.0.0.1:2575"):
        with pytest.raises(DestinationRefusedError):
            production.destinations.check(url)
    production.destinations.check("mllp://10.20.0.7:2575")
    assert (await configure(lab, "order", "mllp://127.0.0.1:2575")).status_code == 200
