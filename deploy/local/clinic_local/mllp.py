"""The sending side of MLLP, as a laboratory's interface engine has it: one block out, its answers in."""

import os
import socket
from collections.abc import Sequence

from clinic_local.state import read_env, root

ANSWER_SECONDS = 30.0
_START, _END = b"\x0b", b"\x1c\r"


class MllpError(Exception):
    """Nobody listens, or whoever does has ended the connection without an answer."""


def mllp_address() -> str:
    """Return `CLINIC_LAB_MLLP` (host:port), else that of the system that runs here."""
    address = os.environ.get("CLINIC_LAB_MLLP") or read_env(root()).get("CLINIC_LAB_MLLP")
    if not address:
        raise MllpError("nothing runs here that listens to MLLP")
    return address


def send_over_mllp(address: str, message: bytes) -> list[bytes]:
    """Send one block; return the answers to the messages in it, one block each, or one for a batch."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(_START + message + _END)
            return _answers(connection, _count(message))
    except OSError as error:
        raise MllpError(f"{address}: {error}") from error


def _count(message: bytes) -> int:
    lines = message.replace(b"\n", b"\r").split(b"\r")
    if any(line.startswith((b"BHS", b"FHS")) for line in lines):
        return 1
    return sum(line.lstrip(b"\xef\xbb\xbf").startswith(b"MSH") for line in lines)


def _answers(connection: socket.socket, wanted: int) -> list[bytes]:
    read = b""
    while read.count(_END) < wanted:
        data = connection.recv(65536)
        if not data:
            raise MllpError("the connection was closed without an answer")
        read += data
    return [block.lstrip(_START) for block in read.split(_END)[:-1]]


def acknowledged(answers: Sequence[bytes]) -> list[str]:
    """MSA-2 of each answer: the control ids of what was answered."""
    segments = [s.split(b"|") for answer in answers for s in answer.split(b"\r") if s.startswith(b"MSA|")]
    return [fields[2].decode("utf-8", "replace") for fields in segments]
