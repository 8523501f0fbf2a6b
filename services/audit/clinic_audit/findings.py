"""What is told of a log, or of an archived part of it, that isn't whole."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`kind` is altered, missing, inserted, reordered, checkpoint, signature or incident."""

    kind: str
    text: str
