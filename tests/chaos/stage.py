"""One system with everything that is done on it: those who use it, what misbehaves, and the books."""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets
from clinic_local.paths import run_dir
from clinic_local.testing import System, running_system

from .books import Books
from .clocks import environment as clocks_environment
from .history import History
from .mending import Operator
from .ordering import Doctor, let_laboratory_take_orders
from .paying import Till
from .people import Desk, Keys, Lab, Person
from .proxy import FaultProxy
from .server_harm import Broker
from .traffic import Errand, Traffic, errands

ENVIRONMENT = {
    "CLINIC_ENVIRONMENT": "test",
    "CLINIC_LONGEST_RESTART_PAUSE_SECONDS": "1",
    "CLINIC_RATE_SIGN_IN_PER_SECOND": "0",
    # A message whose call nobody answered is sent again after so long, and no verdict comes before.
    "CLINIC_UNKNOWN_OUTCOME_GRACE_SECONDS": "30",
    # As deployed: whoever answers requests and whoever works behind them die separately.
    "CLINIC_ROLES": "split",
}
_DETOURS = {"POSTGRES": "postgres", "AMQP": "rabbitmq"}
_PATIENTS = 5


class Stage:
    """Made late and kept: each part is made when it is first asked for."""

    def __init__(
        self, system: System, wires: dict[str, FaultProxy], rng: random.Random, *, clocks_jump: bool = False
    ) -> None:
        self.system = system
        self.wires = wires
        self.clocks_jump = clocks_jump
        self.rng = rng
        self.history = History()
        self.begun_at = time.time()
        # A system that ran before has its first slots taken.
        self.keys = Keys(first=int(time.time()) % 50_000 if os.environ.get("CLINIC_CHAOS_ROOT") else 0)
        self._callers: dict[str, Caller] = {}
        self._to_close = ExitStack()

    def caller(self, person: str) -> Caller:
        """Return a member of the demo network's staff, or `admin`."""
        if person not in self._callers:
            root = self.system.root
            is_admin = person == "admin"
            login = ADMIN_LOGIN if is_admin else self.network.login_of(person)
            password = Secrets(root).get(ADMIN_PASSWORD) if is_admin else self.network.password
            self._callers[person] = self._to_close.enter_context(Person(self.system.url, login, password))
        return self._callers[person]

    @cached_property
    def network(self) -> Network:
        network = Network.read(self.system.root)
        assert network is not None, "the demo network wasn't seeded"
        return network

    @cached_property
    def books(self) -> Books:
        books = Books(self.system, self.history, self.caller("admin"))
        self._to_close.callback(books.close)
        return books

    @cached_property
    def broker(self) -> Broker:
        broker = Broker(self.system)
        self._to_close.callback(broker.close)
        return broker

    @cached_property
    def desk(self) -> Desk:
        return Desk(self.caller("registrar"), self.network, self.history, self.keys)

    @cached_property
    def lab(self) -> Lab:
        return Lab(self.system.url, self.network, self.history, self.keys)

    @cached_property
    def till(self) -> Till:
        payer = self.desk.register()
        login = f"payer.{payer.patient_id}@example.org"
        given = self.desk.caller.post("/v1/users/patients", {"patient_id": payer.patient_id, "login": login})
        patient = self._to_close.enter_context(Person(self.system.url, login, given["initial_password"]))
        return Till(
            desk=self.desk,
            doctor=self.caller("dermatologist"),
            biller=self.caller("biller"),
            payer=payer,
            patient=patient,
            provider_url=self.system.addresses["CLINIC_FAKES_URL"],
            history=self.history,
        )

    @cached_property
    def doctor(self) -> Doctor:
        let_laboratory_take_orders(
            self.caller("admin"), self.network, self.system.addresses["CLINIC_FAKES_URL"]
        )
        return Doctor(self.caller("dermatologist"), self.network, self.history, self.keys)

    @cached_property
    def operator(self) -> Operator:
        return Operator(self.caller("admin"), self.caller("data-steward"), self.broker, self.history)

    @cached_property
    def traffic(self) -> Traffic:
        patients = [self.desk.register() for _ in range(_PATIENTS)]
        return Traffic(self.desk, self.lab, self.till, patients, self.rng)

    @cached_property
    def errands(self) -> dict[str, Errand]:
        """What others do meanwhile, in a run of the matrix."""
        return errands(self.till, self.doctor, self.operator, self.traffic.patients)

    def close(self) -> None:
        self._to_close.close()


@contextmanager
def staged(folder: Path, rng: random.Random, *, by_detours: bool = True) -> Iterator[Stage]:
    """Start a system; with `by_detours`, its processes reach their servers through proxies.

    `CLINIC_CHAOS_ROOT` names the folder of one that runs already (with `CLINIC_ENVIRONMENT=test`), to save
    its start while writing tests; its connections can't be tampered with.
    """
    clocks: dict[str, str] = {}
    with ExitStack() as stack:
        running = os.environ.get("CLINIC_CHAOS_ROOT")
        root = Path(running) if running else folder
        wires = {
            server: stack.enter_context(FaultProxy(lambda name=name: _port(root, name)))  # type: ignore[misc]
            for server, name in (("postgres", "postgres"), ("rabbitmq", "amqp"))
        }
        if running:
            system = System(root, {**os.environ, "CLINIC_ROOT": running, **ENVIRONMENT})
        else:
            tampering: dict[str, str] = {}
            if by_detours:
                tampering = {
                    f"CLINIC_DETOUR_{name}": wires[server].address for name, server in _DETOURS.items()
                }
                tampering |= (clocks := clocks_environment())
            archives = {"CLINIC_AUDIT_ARCHIVE_DIR": str(root / "audit-archives")}
            system = stack.enter_context(running_system(root, **ENVIRONMENT, **archives, **tampering))
        stage = Stage(system, wires, rng, clocks_jump=bool(clocks))
        stack.callback(stage.close)
        yield stage


def _port(root: Path, name: str) -> int:
    return int(json.loads((run_dir(root) / "ports.json").read_text())[name])
