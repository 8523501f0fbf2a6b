"""The demo network: one centre in Moscow, three departments and the people who work there.

Made through the public API, so that it is what a client could have made. All names are fictitious.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from clinic_local.api_client import ApiError, Caller
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.paths import private_dir, run_dir, write_private
from clinic_local.ports import LOOPBACK

MAIL_DOMAIN = "demo.example.org"

DEPARTMENTS = {"dermatology": "Дерматология", "dietetics": "Диетология", "laboratory": "Процедурный кабинет"}
SERVICES = {"dermatology": "Приём дерматолога", "dietetics": "Приём диетолога"}
PRICE_MINOR = {"dermatology": 250_000, "dietetics": 180_000}
CURRENCY = "RUB"

STAFF: dict[str, dict[str, Any]] = {
    "registrar": {"name": ("Регистратурова", "Вера"), "roles": ["registrar"]},
    "dermatologist": {"name": ("Кожина", "Тестина"), "roles": ["doctor"], "department": "dermatology"},
    "dietitian": {"name": ("Диетов", "Пример"), "roles": ["doctor"], "department": "dietetics"},
    "manager": {"name": ("Отчётова", "Анна"), "roles": ["management"]},
    "biller": {"name": ("Счётов", "Иван"), "roles": ["biller"]},
    "privacy-officer": {"name": ("Тайнова", "Мария"), "roles": ["privacy-officer"]},
    "data-steward": {"name": ("Исправникова", "Ольга"), "roles": ["data-steward"]},
}
LAB_NAME = "Demo Laboratory"
_CONFIGURED = (
    "enabled",
    "time_zone",
    "default_charset",
    "identifier_authorities",
    "default_department_id",
    "critical_acknowledge_seconds",
    "protocols",
    "ack_mode",
    "messages_per_second",
    "test_mode",
    "callback_url",
)


@dataclass
class Network:
    """What the demo network consists of, by name: ids, logins, the lab's credentials."""

    centre_id: str = ""
    departments: dict[str, str] = field(default_factory=dict)
    staff: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    rooms: dict[str, str] = field(default_factory=dict)
    lab_client_id: str = ""
    lab_client_secret: str = field(default="", repr=False)
    lab_partner_id: str = ""
    password: str = field(default="", repr=False)

    @staticmethod
    def login_of(person: str) -> str:
        return ADMIN_LOGIN if person == "admin" else f"{person}@{MAIL_DOMAIN}"

    @classmethod
    def read(cls, root: Path) -> Self | None:
        try:
            return cls(**json.loads(_file(root).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def write(self, root: Path) -> None:
        write_private(_file(root), json.dumps(asdict(self), indent=1))


def open_mllp(admin: Caller, partner_id: str) -> None:
    """Let the demo laboratory connect over MLLP from this machine, and leave the rest as it is configured."""
    path = f"/v1/lab/partners/{partner_id}"
    # Configured at all only once the lab's registration has arrived; a PUT waits for that.
    known = next((p for p in admin.items("/v1/lab/partners") if p["partner_id"] == partner_id), {})
    if not known.get("mllp_peers"):
        kept = {name: known[name] for name in _CONFIGURED if name in known}
        admin.put(path, {**kept, "mllp_peers": [LOOPBACK]})


def _file(root: Path) -> Path:
    """Return where it is kept: it holds secrets, so beside the others."""
    return private_dir(run_dir(root) / "secrets") / "demo-network.json"


@contextmanager
def _unless_left_out() -> Iterator[None]:
    """Make what needs a service only where the operator has it."""
    try:
        yield
    except ApiError as error:
        if error.slug != "not-installed":
            raise


class Builder:
    """Makes the network step by step. What an interrupted run has made is found again by its code."""

    def __init__(self, url: str, root: Path) -> None:
        self._url = url
        self._root = root
        self._admin = Caller(url, ADMIN_LOGIN, Secrets(root).get(ADMIN_PASSWORD))
        self.network = Network(password=secrets.token_urlsafe(12))

    def build(self) -> Network:
        self._open_centre()
        for person in STAFF:
            self._add_staff(person)
        with _unless_left_out():
            self._offer_services()
            with _unless_left_out():
                self._set_prices()
        self._register_lab()
        self.network.write(self._root)
        return self.network

    def _open_centre(self) -> None:
        centre = {
            "code": "demo-centre",
            "name": "Демо-центр",
            "legal_entity": {"name": "ООО «Демо-клиника»"},
            "currency": CURRENCY,
            "time_zone": "Europe/Moscow",
            "language": "ru",
            "address": "Тестоград, ул. Примерная, 1",
            "phone": "+70000000100",
        }
        self.network.centre_id = self._made("/v1/centres", centre, "centre_id", "code")
        for code, name in DEPARTMENTS.items():
            department = {
                "centre_id": self.network.centre_id,
                "code": code,
                "name": name,
                "specialty": code if code in SERVICES else None,
            }
            self.network.departments[code] = self._made(
                "/v1/departments", department, "department_id", "code"
            )

    def _add_staff(self, person: str) -> None:
        about = STAFF[person]
        department = about.get("department")
        family, given = about["name"]
        added = self._admin.post(
            "/v1/staff",
            {
                "name": {"family": family, "given": given},
                "login": self.network.login_of(person),
                "roles": about["roles"],
                "centre_ids": [self.network.centre_id],
                "department_ids": [self.network.departments[department]] if department else [],
                "practitioner": department is not None,
                "specialty": department,
            },
        )
        self.network.staff[person] = added["staff_id"]
        login, initial = self.network.login_of(person), added["initial_password"]
        with Caller(self._url, login, initial) as newcomer:
            newcomer.post(
                "/v1/me/password", {"current_password": initial, "new_password": self.network.password}
            )

    def _offer_services(self) -> None:
        with self._as("registrar") as registrar:
            for department, name in SERVICES.items():
                self._offer(department, name)
                person = "dermatologist" if department == "dermatology" else "dietitian"
                hours = [{"weekday": day, "starts_local": "08:00", "ends_local": "20:00"} for day in range(7)]
                registrar.put(
                    "/v1/availability",
                    {
                        "practitioner_id": self.network.staff[person],
                        "centre_id": self.network.centre_id,
                        "weekly": hours,
                    },
                )

    def _set_prices(self) -> None:
        with self._as("biller") as biller:
            for department in SERVICES:
                biller.post(
                    "/v1/prices",
                    {
                        "service_code": f"{department}-consultation",
                        "centre_id": self.network.centre_id,
                        "amount_minor": PRICE_MINOR[department],
                        "currency": CURRENCY,
                        "valid_from": "2026-01-01",
                    },
                )

    def _as(self, person: str) -> Caller:
        return Caller(self._url, self.network.login_of(person), self.network.password)

    def _offer(self, department: str, name: str) -> None:
        service = {
            "code": f"{department}-consultation",
            "name": name,
            "duration_seconds": 1800,
            "department_ids": [self.network.departments[department]],
            "needs": ["practitioner", "room"],
        }
        self.network.services[department] = self._made("/v1/services", service, "service_id", "code")
        room = {
            "name": f"Кабинет: {DEPARTMENTS[department]}",
            "centre_id": self.network.centre_id,
            "department_ids": [self.network.departments[department]],
        }
        self.network.rooms[department] = self._admin.post("/v1/rooms", room)["resource_id"]

    def _register_lab(self) -> None:
        client = self._admin.post("/v1/clients", {"kind": "lab", "name": LAB_NAME})
        self.network.lab_client_id = client["client_id"]
        self.network.lab_client_secret = client["client_secret"]
        self.network.lab_partner_id = client.get("partner_id") or client["client_id"]
        with _unless_left_out():
            open_mllp(self._admin, self.network.lab_partner_id)

    def _made(self, path: str, body: dict[str, Any], id_field: str, code_field: str) -> str:
        """Create, or find what an interrupted run created under the same code."""
        try:
            return str(self._admin.post(path, body)[id_field])
        except ApiError as error:
            if error.status != 409:  # noqa: PLR2004  # Conflict: the code is taken
                raise
            listed = self._admin.items(path)
            return str(next(item[id_field] for item in listed if item[code_field] == body[code_field]))
