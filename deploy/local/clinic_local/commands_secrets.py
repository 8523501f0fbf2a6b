"""`clinic secrets`: what a deployment's secrets are made of, and replacing the key that signs tokens."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from clinic_identity.key_rotation import rotate
from clinic_identity.keys import SigningKeyMissingError
from clinic_shared import contracts

from clinic_local.errors import SetupError
from clinic_local.kubernetes import AUTHORITY
from clinic_local.operations import plural
from clinic_local.production_secrets import Addresses, SecretsFolder, make_all

app = typer.Typer(help="Secrets of a deployment.", no_args_is_help=True)

TO_BE_BROUGHT = {
    "notifications": (
        "clinic_whatsapp_access_token",
        "clinic_whatsapp_app_secret",
        "clinic_whatsapp_verify_token",
        "clinic_twilio_auth_token",
        "clinic_postmark_server_token",
    ),
    "billing": ("clinic_stripe_secret_key", "clinic_stripe_webhook_secret"),
}

Folder = Annotated[Path, typer.Argument(help="where they are written, one folder per process")]


@app.command()
def init(
    folder: Folder,
    *,
    postgres: Annotated[
        str, typer.Option(help="host:port of PostgreSQL, or of each service's: {service}-database:5432")
    ] = "postgres:5432",
    amqp: Annotated[str | None, typer.Option(help="host:port of RabbitMQ")] = None,
    management: Annotated[str | None, typer.Option(help="host:port of its management API")] = None,
    vhost: str = "/",
    tls: Annotated[
        bool, typer.Option("--tls", help="servers are talked to over TLS; --authority says whom to trust")
    ] = False,
    authority: Annotated[str, typer.Option(help="file of the authority, as processes see it")] = AUTHORITY,
    exchange_tokens: Annotated[
        bool, typer.Option(help="make the gateway's key too, once every service knows of internal tokens")
    ] = False,
) -> None:
    """Make the passwords, URLs and keys that a deployment needs. What is there stays as it is."""
    services = tuple(contracts.load().services)
    secrets = SecretsFolder(folder)
    at = Addresses(
        postgres=postgres,
        amqp=amqp or ("rabbitmq:5671" if tls else "rabbitmq:5672"),
        management=management or ("rabbitmq:15671" if tls else "rabbitmq:15672"),
        vhost=vhost,
        authority=authority if tls else None,
    )
    make_all(secrets, services, at, exchange_tokens=exchange_tokens)
    print(f"{plural(len(secrets.written), 'secret')} written to {folder}; what was there stayed as it was.")
    missing = [
        f"{service}/{name}"
        for service, names in TO_BE_BROUGHT.items()
        for name in names
        if not (folder / service / name).exists()
    ]
    if missing:
        print("Only you have these; put each into a file of its name:")
        print("\n".join(f"  {name}" for name in missing))
    print("Keep the folder out of version control; `clinic config check` says whether a service can start.")


@app.command("rotate-signing-key")
def rotate_signing_key(
    folder: Annotated[Path, typer.Argument(help="identity's folder of secrets (CLINIC_SECRETS_DIR)")],
    *,
    wait: Annotated[bool, typer.Option(help="go through all steps; takes about eleven minutes")] = False,
) -> None:
    """Replace the key that signs tokens in three steps, of which each call takes the next one that is due.

    Publish the new key; sign with it; withdraw the old one. Services read files by themselves, and no
    request fails in between.
    """
    while True:
        try:
            progress = rotate(folder, now=datetime.now(UTC))
        except (SigningKeyMissingError, OSError) as error:
            raise SetupError("secrets", str(error), "Make one with: clinic secrets init") from error
        print(progress.step.value + ".")
        if progress.due_at is None:
            return
        print(f"The next step is due at {progress.due_at:%H:%M:%S} UTC.")
        if not wait:
            return
        time.sleep(max(1.0, (progress.due_at - datetime.now(UTC)).total_seconds()))
