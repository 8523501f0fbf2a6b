"""What differs between the log as it stands and as it was witnessed, record by record. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """`kind` is altered, missing, inserted or reordered; `index` is where, as it was witnessed or as it stands."""

    kind: str
    index: int
    text: str


def differences(log: Sequence[bytes], witnessed: Sequence[bytes]) -> Iterator[Difference]:
    """Name each record that isn't where it was witnessed, by its leaf hash. What came later isn't judged."""
    stands, was = {}, {}
    if list(log[: len(witnessed)]) != list(witnessed):
        stands = {leaf: index for index, leaf in enumerate(log)}
        was = {leaf: index for index, leaf in enumerate(witnessed)}
    here = there = 0
    while here < len(log) and there < len(witnessed):
        if log[here] == witnessed[there]:
            here, there = here + 1, there + 1
            continue
        is_known, is_there = log[here] in was, witnessed[there] in stands
        if is_there and is_known:
            yield Difference("reordered", here, f"record {here} was witnessed as record {was[log[here]]}")
        elif not is_there and not is_known:
            yield Difference("altered", here, f"record {here} isn't what was witnessed")
        elif not is_there:
            yield Difference("missing", there, f"the record that was witnessed as {there} is missing")
            there += 1
            continue
        else:
            yield Difference("inserted", here, f"record {here} was never witnessed")
            here += 1
            continue
        here, there = here + 1, there + 1
    for index in range(there, len(witnessed)):
        yield Difference("missing", index, f"the record that was witnessed as {index} is missing")
