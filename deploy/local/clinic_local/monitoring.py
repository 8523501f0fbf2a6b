"""Prometheus and promtool from the distribution's package, unpacked into the cache: for tests, and for a look.

`clinic_local.testing.running_system` and `make up` don't start it; `deploy/compose` does.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clinic_local import download
from clinic_local.paths import CHECKOUT, cache_dir

PACKAGES = ("prometheus",)
SINCE_DEBIAN_13 = ("promtool",)
ADVICE = "Install Prometheus 2.42 or newer, so that prometheus and promtool are in the PATH"


@dataclass(frozen=True)
class Monitoring:
    """The two programs, and the environment they need."""

    prometheus: Path
    promtool: Path
    environment: Mapping[str, str]

    @classmethod
    def unpacked(cls) -> Self:
        """Return this machine's, or the distribution's, downloaded at the first call. Raises SetupError."""
        here = [shutil.which(name) for name in ("prometheus", "promtool")]
        if here[0] and here[1]:
            return cls(Path(here[0]), Path(here[1]), dict(os.environ))
        root = download.unpacked_packages(
            cache_dir(CHECKOUT), "prometheus", PACKAGES, where_known=SINCE_DEBIAN_13, advice=ADVICE
        )
        environment = {**os.environ, "LD_LIBRARY_PATH": download.library_path(root)}
        return cls(root / "usr/bin/prometheus", root / "usr/bin/promtool", environment)
