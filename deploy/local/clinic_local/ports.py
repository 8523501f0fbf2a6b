"""Free ports on the loopback: chosen once, remembered, and kept for as long as nobody else takes them."""

import json
import pwd
import random
import socket
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below Linux' range for outgoing connections (32768 and up): a client of ours can't sit on a remembered port.
_FIRST, _LAST = 20000, 32000
_TCP = Path("/proc/net/tcp")
_LISTENING = "0A"
_random = random.SystemRandom()


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection in TIME_WAIT doesn't make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def reserve(port: int) -> socket.socket | None:
    """Keep others from finding a port free until the returned socket is closed; None if that can't be done."""
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Without SO_REUSEADDR, so that `is_free` fails for everybody else.
        reservation.bind((LOOPBACK, port))
    except OSError:
        reservation.close()
        return None
    return reservation


def is_listening(port: int, *, timeout_seconds: float = 0.5) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


def free_port() -> int:
    while not is_free(port := _random.randint(_FIRST, _LAST)):
        pass
    return port


def holder(port: int) -> str:
    """Say who listens on a port of the loopback: the program where we may know it, else whose it is."""
    found = _listening(port)
    if not found:
        return "another program"
    inode, uid = found[0]
    for folder in Path("/proc").glob("[0-9]*"):
        if inode in _sockets_of(folder):
            with suppress(OSError):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
    return f"a program of user {_name_of(uid)}"


def is_held_by(port: int, pid: int) -> bool:
    """Tell whether it is this process that listens on a port of the loopback, and not another that answers there.

    True, too, where this machine doesn't tell.
    """
    if not _TCP.exists():
        return True
    return not _sockets_of(Path("/proc", str(pid))).isdisjoint(inode for inode, _ in _listening(port))


def _listening(port: int) -> list[tuple[str, int]]:
    """Return inode and user of each socket that listens there."""
    try:
        rows = [line.split() for line in _TCP.read_text().splitlines()[1:]]
    except OSError:
        return []
    ends = (f"0100007F:{port:04X}", f"00000000:{port:04X}")
    return [(row[9], int(row[7])) for row in rows if row[1] in ends and row[3] == _LISTENING]


def _sockets_of(process: Path) -> set[str]:
    """Return the inodes of a process's sockets, as far as we may know them."""
    inodes = set[str]()
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    return inodes


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class PortBook:
    """Ports by name, remembered in a file (None: not remembered)."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._ports: dict[str, int] = {}
        if file is not None and file.exists():
            self._ports = json.loads(file.read_text())

    def take(self, name: str, preferred: int | None = None) -> int:
        """Return the port remembered for `name` if it is free, else `preferred`, else any free one."""
        taken = {port for owner, port in self._ports.items() if owner != name}
        for candidate in (self._ports.get(name), preferred):
            if candidate is not None and candidate not in taken and is_free(candidate):
                return self._remember(name, candidate)
        while (port := free_port()) in taken:
            pass
        return self._remember(name, port)

    def _remember(self, name: str, port: int) -> int:
        self._ports[name] = port
        if self._file is not None:
            self._file.write_text(json.dumps(self._ports, indent=1, sort_keys=True))
        return port
