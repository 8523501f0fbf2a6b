"""RabbitMQ and Erlang out of the distribution's packages, and the advice where there are none to be had."""

import re
from pathlib import Path

from clinic_local import download

_NAME = "rabbitmq"
_PACKAGES = (
    "rabbitmq-server",
    *(
        f"erlang-{part}"
        for part in (
            *("base", "asn1", "crypto", "eldap", "inets", "mnesia", "os-mon", "parsetools"),
            *("public-key", "runtime-tools", "ssl", "syntax-tools", "tools", "xmerl"),
        )
    ),
)
ADVICE = (
    "Choose one:\n"
    "1. give a broker: export CLINIC_AMQP_URL=amqp://user:password@host:5672/%2F\n"
    "   and CLINIC_AMQP_MANAGEMENT_URL=http://user:password@host:15672\n"
    "2. install RabbitMQ 3.10 to 4.x, for instance: apt-get install rabbitmq-server\n"
    "3. run one in a container and give its URLs:\n"
    "   docker run -p 5672:5672 -p 15672:15672 rabbitmq:4-management"
)


def root(cache: Path) -> Path:
    """Return a folder that holds `usr/lib/rabbitmq` and `usr/lib/erlang`, downloading it at the first call."""
    return download.unpacked_packages(cache, _NAME, _PACKAGES, advice=ADVICE, finish=_set_erlang_root)


def already_unpacked(cache: Path) -> Path | None:
    return download.already_unpacked(cache, _NAME, _PACKAGES)


def _set_erlang_root(draft: Path, target: Path) -> None:
    """Point Erlang's start scripts, which name /usr/lib/erlang, to where it will lie."""
    erlang = draft / "usr/lib/erlang"
    for script in (*erlang.glob("bin/*"), *erlang.glob("erts-*/bin/*")):
        if script.name in {"erl", "start"} and not script.is_symlink():
            text = re.sub(
                r'ROOTDIR="?/usr/lib/erlang"?', f"ROOTDIR={target}/usr/lib/erlang", script.read_text()
            )
            script.write_text(text)
