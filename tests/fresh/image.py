"""The image, built by buildah from deploy/Dockerfile on a debootstrapped base, and one service started from it."""

import subprocess
from pathlib import Path

from fresh.machines import ROOT, Machine

# A registry's base images can't be had everywhere; this one is the machine itself as debootstrap left it.
_BASE_IMAGE = "localhost/base"
_IMAGE = "localhost/polyclinic"
_SERVICE = "referrals"
_PREPARE = """
apt-get -qq update
apt-get -qq install --no-install-recommends buildah netavark
# It would raise these limits, which root in a container mayn't.
python3 - > /etc/containers/containers.conf <<'PYTHON'
import resource as r
limits = {"nofile": r.getrlimit(r.RLIMIT_NOFILE), "nproc": r.getrlimit(r.RLIMIT_NPROC)}
print("[containers]")
print("default_ulimits =", [f"{name}={soft}:{hard}" for name, (soft, hard) in limits.items()])
PYTHON
"""
_BUILD = f"""
cd "$CLONE"
container=$(buildah from scratch)
buildah add --quiet "$container" /base.tar /
buildah config ${{SSL_CERT_FILE:+--env SSL_CERT_FILE=$SSL_CERT_FILE}} "$container"
buildah commit --quiet --rm "$container" {_BASE_IMAGE}
rm /base.tar
buildah bud --build-arg BASE_IMAGE={_BASE_IMAGE} ${{PIP_INDEX_URL:+--build-arg PIP_INDEX_URL=$PIP_INDEX_URL}} \
    --file deploy/Dockerfile --tag {_IMAGE} .
"""
# The clone's own servers play those that an operator gives; the service runs from the image alone, as its user.
_START = f"""
cd "$CLONE"
CLINIC_SUBSCRIBED_SERVICES={_SERVICE} CLINIC_SEED=no make up
. .run/env
container=$(buildah from {_IMAGE})
in_image() {{
    buildah run --user 10001:10001 --env CLINIC_DATABASE_URL="$CLINIC_{_SERVICE.upper()}_DATABASE_URL" \
        --env CLINIC_AMQP_URL="$CLINIC_PRIVATE_AMQP_URL" --env CLINIC_SUBSCRIBED_SERVICES={_SERVICE} \
        --env CLINIC_AMQP_MANAGEMENT_URL="$CLINIC_PRIVATE_AMQP_MANAGEMENT_URL" --env CLINIC_HTTP_PORT=18080 \
        --env CLINIC_HTTP_HOST=127.0.0.1 "$container" -- "$@"
}}
in_image python -m clinic_{_SERVICE} migrate
in_image python -m clinic_{_SERVICE} all &
service=$!
python3 - <<'PYTHON'
import time, urllib.error, urllib.request
for _ in range(120):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:18080/readyz").read().decode())
        break
    except OSError as error:
        last = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
        time.sleep(0.5)
else:
    raise SystemExit("the service from the image isn't ready: " + str(last))
PYTHON
kill "$service"
wait "$service" || true
make down
"""


def build_and_start(machine: Machine, log: Path) -> bool:
    subprocess.run(
        [
            *("tar", "--create", "--file", machine.root / "base.tar", "--exclude=./base.tar"),
            *("--exclude=./var/cache/apt/archives/*.deb", "--directory", machine.root, "."),
        ],
        check=True,
    )
    machine.add(ROOT)
    # chroot isolation and plain copies as layers: both work without the kernel's help, as in a build container.
    environment = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    return all(
        machine.run(ROOT, script, log=log, environment=environment) == 0
        for script in (_PREPARE, _BUILD, _START)
    )
