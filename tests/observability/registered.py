"""What our processes can expose: every sample's name with its labels, from the code of all of them."""

import importlib
from collections.abc import Iterator

from clinic_shared import contracts
from clinic_shared.metrics import REGISTRY, StoredCounter

_SUFFIXES: dict[str, dict[str, tuple[str, ...]]] = {
    "counter": {"_total": (), "_created": ()},
    "gauge": {"": ()},
    "info": {"_info": ()},
    "histogram": {"_bucket": ("le",), "_sum": (), "_count": ()},
    "summary": {"_sum": (), "_count": ()},
    "unknown": {"": ()},
}


def import_all() -> None:
    known = contracts.load()
    for entry in (*known.services.values(), *known.listeners.values()):
        importlib.import_module(f"{entry.package}.app")


def samples() -> dict[str, frozenset[str]]:
    """Return name -> labels of everything that a process of ours may expose."""
    import_all()
    return dict(_samples())


def _samples() -> Iterator[tuple[str, frozenset[str]]]:
    for collector in set(REGISTRY._collector_to_names):
        own = getattr(collector, "_labelnames", ()) or (
            collector._labels if isinstance(collector, StoredCounter) else ()
        )
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            sampled = {label for sample in family.samples for label in sample.labels}
            for suffix, more in _SUFFIXES[family.type].items():
                yield family.name + suffix, frozenset((*own, *more, *sampled))
