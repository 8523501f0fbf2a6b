"""`clinic lab send FILE`: send an HL7 file as the demo laboratory, over HTTP or MLLP, and show where it ends.

The samples' placeholders (`PATIENT-NUMBER`, `ORDER-NUMBER`) become numbers of a fictitious patient and an
order of theirs. Both are found again next time, so that the same file twice is the same message twice.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

import httpx
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clinic_local.api_client import PROBLEM, ApiError, Caller
from clinic_local.demo_network import LAB_NAME, Network, open_mllp
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.errors import SetupError
from clinic_local.mllp import MllpError, acknowledged, mllp_address, send_over_mllp
from clinic_local.state import clinic_url, root

app = typer.Typer(help="What a laboratory does.", no_args_is_help=True)

MESSAGES = "/v1/lab/messages"
SETTLED_SECONDS = 10
_WIDTH = 110
_LONGEST_VALUE = 60
_LAB_NUMBERS = "DEMO-LAB"
# Placeholder of the number, of the order's, and who is meant; the longer placeholders first.
_PEOPLE = (
    ("PATIENT-NUMBER-2", "ORDER-NUMBER-2", {"family": "Testov", "given": "Pyotr"}, "1985-03-04", "male"),
    ("PATIENT-NUMBER", "ORDER-NUMBER", {"family": "Testova", "given": "Anna"}, "1990-01-02", "female"),
)
_MEANINGS = {
    "applied": "in the chart",
    "in-flight": "on its way to the chart",
    "parked": "waits for a person: /v1/lab/unmatched",
    "rejected": "refused, and the sender knows",
    "superseded": "what is in the chart is as new or newer",
    "discarded": "a person decided that it has no effect",
}


@app.callback()
def _group() -> None:
    """Keep `send` a subcommand."""


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="an HL7 v2 file")],
    patient: Annotated[str | None, typer.Option(help="number to put in the place of PATIENT-NUMBER")] = None,
    order: Annotated[str | None, typer.Option(help="number to put in the place of ORDER-NUMBER")] = None,
    mllp: Annotated[bool, typer.Option("--mllp", help="send over MLLP, not HTTP")] = False,
) -> None:
    """Send FILE; print its acknowledgement, its disposition and what stands in the chart."""
    network = Network.read(root())
    if network is None:
        raise SetupError("lab", "there is no demo network", "Make it with: make seed")
    try:
        message = file.read_bytes()
    except OSError as error:
        raise SetupError("lab", f"{file} can't be read: {error.strerror}") from error
    url = clinic_url()
    try:
        with Desk(url, network) as desk:
            prepared = _replace(message, {"PATIENT-NUMBER": patient, "ORDER-NUMBER": order})
            desk.post(file, desk.with_demo_people(prepared), over_mllp=mllp)
    except ApiError as error:
        raise SetupError("lab", str(error)) from error
    except MllpError as error:
        raise SetupError("lab", str(error), "Look at: make status") from error
    except httpx.TransportError as error:
        raise SetupError("lab", f"{url} can't be reached", "Look at: make status") from error


class Desk:
    """The demo network's people who have to do with a lab message, and a terminal to tell them on."""

    def __init__(self, url: str, network: Network) -> None:
        self._url = url
        self._network = network
        self._registrar = Caller(url, network.login_of("registrar"), network.password)
        self._doctor = Caller(url, network.login_of("dermatologist"), network.password)
        self._console = Console(highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in (self._registrar, self._doctor):
            caller.__exit__()

    # -- before

    def with_demo_people(self, message: bytes) -> bytes:
        """Put numbers of fictitious people in the places of the samples' placeholders."""
        for place, order_place, name, birth_on, sex in _PEOPLE:
            if place.encode() not in message:
                continue
            person = self._person(place, name, birth_on, sex)
            number = next(i["value"] for i in person["identifiers"] if i["authority"] == "POLYCLINIC")
            # Ordered in any case: else the result is nobody's who could be shown it.
            order = self._order_of(person["patient_id"])
            message = _replace(message, {place: number, order_place: order})
        return message

    def _person(self, place: str, name: dict[str, str], birth_on: str, sex: str) -> dict[str, Any]:
        identifier = {"authority": _LAB_NUMBERS, "type": "PI", "value": place}
        search = {"identifier": {"authority": _LAB_NUMBERS, "value": place}}
        found: list[dict[str, Any]] = self._registrar.post("/v1/patients/search", search)["items"]
        if found:
            return found[0]
        made: dict[str, Any] = self._registrar.post(
            "/v1/patients",
            {
                "centre_id": self._network.centre_id,
                "name": name,
                "birth_on": birth_on,
                "sex": sex,
                "identifiers": [identifier],
            },
        )
        self._console.print(f"Registered {name['family']} {name['given']} (fictitious)")
        return made

    def _order_of(self, patient_id: str) -> str:
        placed = self._doctor.get("/v1/lab/orders", patient_id=patient_id)["items"]
        if not placed:
            placed = [
                self._doctor.post(
                    "/v1/lab/orders",
                    {
                        "patient_id": patient_id,
                        "partner_id": self._network.lab_partner_id,
                        "department_id": self._network.departments["dermatology"],
                        "tests": [{"code": "58410-2", "system": "http://loinc.org", "display": "CBC"}],
                    },
                )
            ]
            self._console.print(f"Ordered as {placed[0]['placer_order_number']}")
        return str(placed[0]["placer_order_number"])

    # -- the message

    def post(self, file: Path, message: bytes, *, over_mllp: bool = False) -> None:
        if over_mllp:
            self._post_over_mllp(file, message)
            return
        answer, seconds = self._send(message)
        who = self._network.lab_client_id
        self._console.print(
            f"[bold]POST {MESSAGES}[/]  {file.name}, {len(message)} bytes, as {who} ({LAB_NAME})"
        )
        self._console.print(f"  {answer.status_code} in {seconds * 1000:.0f} ms")
        self._print_answer(answer)
        if not answer.is_success:
            raise typer.Exit(1)
        for message_id in _message_ids(answer):
            self._follow(message_id)

    def _post_over_mllp(self, file: Path, message: bytes) -> None:
        with Caller(self._url, ADMIN_LOGIN, Secrets(root()).get(ADMIN_PASSWORD)) as admin:
            open_mllp(admin, self._network.lab_partner_id)
        address = mllp_address()
        self._console.print(f"[bold]MLLP {address}[/]  {file.name}, {len(message)} bytes ({LAB_NAME})")
        started_at = time.monotonic()
        answers = send_over_mllp(address, message)
        self._console.print(f"  {len(answers)} answers in {(time.monotonic() - started_at) * 1000:.0f} ms")
        for answer in answers:
            self._print_segments(answer.decode("utf-8", "replace"))
        for control_id in acknowledged(answers):
            message_id = self._message_of(control_id)
            if message_id is None:
                self._console.print(f"\nMessage {control_id} came long ago: it is not among the newest")
            else:
                self._follow(message_id)

    def _message_of(self, control_id: str) -> str | None:
        """Over MLLP nothing tells the message's id: it is the newest of this control id."""
        newest = self._doctor.get(MESSAGES)["items"]
        return next((m["message_id"] for m in newest if m["control_id"] == control_id), None)

    def _send(self, message: bytes) -> tuple[httpx.Response, float]:
        credentials = httpx.BasicAuth(self._network.lab_client_id, self._network.lab_client_secret)
        started_at = time.monotonic()
        answer = httpx.post(
            self._url + MESSAGES,
            content=message,
            headers={"Content-Type": "application/hl7-v2"},
            auth=credentials,
            timeout=30,
            trust_env=False,
        )
        return answer, time.monotonic() - started_at

    def _print_answer(self, answer: httpx.Response) -> None:
        if answer.headers.get("content-type", "").startswith(PROBLEM):
            self._console.print(f"  [red]{answer.json()['title']}[/]: {answer.json()['detail']}", markup=True)
            return
        if not answer.content:
            self._console.print("  no acknowledgement: the message wants none")
        self._print_segments(answer.text)

    def _print_segments(self, answer: str) -> None:
        for segment in answer.split("\r"):
            if segment:
                self._console.print(f"  {segment}", markup=False)

    def _follow(self, message_id: str) -> None:
        """Wait until the message is settled, then show what became of each patient group."""
        message = self._settled(message_id)
        received_at = datetime.fromisoformat(message["received_at"])
        copies = f", the same bytes {message['copies'] + 1} times" if message["copies"] else ""
        self._console.print(
            f"\n[bold]Message {message['control_id']}[/] ({message['message_type']}, {message['charset']}) "
            f"taken {_clock(received_at)} as {message_id}{copies}"
        )
        for finding in message["findings"]:
            line = f"  {finding['severity']} {finding['location']}: {finding['text']}"
            self._console.print(line, markup=False)
        for unit in message["units"]:
            reason = f", {unit['reason']}" if unit["reason"] else ""
            meaning = _MEANINGS.get(unit["disposition"], "")
            self._console.print(
                f"  patient group {unit['group_index'] + 1}: [bold]{unit['disposition']}[/]{reason} ({meaning})"
            )
            if unit["patient_id"]:
                self._show_chart(unit)

    def _settled(self, message_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            message: dict[str, Any] = self._doctor.get(f"{MESSAGES}/{message_id}")
            on_its_way = any(unit["disposition"] == "in-flight" for unit in message["units"])
            if not on_its_way or time.monotonic() > deadline:
                return message
            time.sleep(0.1)

    def _show_chart(self, unit: dict[str, Any]) -> None:
        wanted = {report["result_id"] for report in unit["reports"]}
        found = self._doctor.items(f"/v1/patients/{unit['patient_id']}/observations")
        for result in found:
            if result["result_id"] in wanted:
                self._show_result(result)

    def _show_result(self, result: dict[str, Any]) -> None:
        version, *older = result["versions"]
        report = version["report"]
        name = report["display"] or report["code"] or "without a name"
        beside = ", ".join(f"{v['version']} {v['status']}" for v in older)
        title = f"In the chart: {name}, version {version['version']} {version['status']}"
        self._console.print(f"\n  [bold]{title}[/]{f', beside version {beside}' if beside else ''}")
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("  observation", "value", "units", "range", "flags", "status"):
            table.add_column(column)
        before = {_key(line): line["value"] for line in older[0]["observations"]} if older else {}
        for line in version["observations"]:
            table.add_row(*_cells(line, before.get(_key(line), line["value"])))
        Console(highlight=False, width=max(_WIDTH, self._console.width)).print(table)
        for note in version["notes"]:
            self._console.print(f"  note: {_shortened(note)}", markup=False)


def _key(line: dict[str, Any]) -> tuple[str | None, str | None]:
    return line["code"], line["sub_id"]


def _cells(line: dict[str, Any], before: str | None) -> list[Text]:
    """One observation as a row; its earlier value stands beside it where that was another."""
    value = _shortened(line["value"])
    if before != line["value"]:
        value += f" (was {_shortened(before)})"
    return [
        Text(f"  {line['display'] or line['code'] or '-'}"),
        Text(value),
        Text(line["units"] or ""),
        Text(line["reference_range"] or ""),
        Text(" ".join(line["interpretation"]), style="red"),
        Text(" ".join([line["status"] or "", *(f"note: {_shortened(note)}" for note in line["notes"])])),
    ]


def _message_ids(answer: httpx.Response) -> list[str]:
    """The messages that the answer links to (RFC 8288); one alone is only in Location."""
    links = [part.split(">")[0].strip(" <") for part in answer.headers.get("link", "").split(",") if part]
    if not links and "location" in answer.headers:
        links = [answer.headers["location"]]
    return [link.rpartition("/")[2] for link in links]


def _replace(message: bytes, values: dict[str, str | None]) -> bytes:
    for placeholder, value in values.items():
        if value is not None:
            message = message.replace(placeholder.encode(), value.encode())
    return message


def _shortened(value: str | None) -> str:
    text = " / ".join((value or "").splitlines())
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S.%f}"[:-3] + " UTC"
