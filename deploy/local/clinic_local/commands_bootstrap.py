"""`clinic bootstrap`: what a new installation needs once."""

import asyncio
from typing import Annotated
from urllib.parse import quote

import typer
from clinic_identity.bootstrap import LINK_LIFE, invite_first_administrator
from clinic_identity.domain import FirstAdministratorExistsError, InvalidLoginError, LoginTakenError
from clinic_identity.settings import IdentitySettings
from clinic_shared.database import Database
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from clinic_local.errors import SetupError
from clinic_local.service_database import known_url, sqlalchemy_url
from clinic_local.state import clinic_url

app = typer.Typer(help="What a new installation needs once.", no_args_is_help=True)

_DATABASE_URL = "CLINIC_IDENTITY_DATABASE_URL"


@app.callback()
def _group() -> None:
    """Keep the subcommand's name although it is the only one."""


@app.command()
def admin(
    login: Annotated[str, typer.Argument(help="the first administrator's e-mail address")],
) -> None:
    """Print a link with which the first administrator chooses a password. It works once, for a day.

    Run it where identity's settings are. Run again before the link was used, it makes another one.
    """
    token = asyncio.run(_invite(login))
    hours = int(LINK_LIFE.total_seconds() // 3600)
    print(f"Open this link once within {hours} hours and choose a password:")
    print(f"{clinic_url()}/welcome?token={quote(token)}")


async def _invite(login: str) -> str:
    database = Database(_database_url(), service="identity", pool_size=1)
    try:
        return await invite_first_administrator(database, login)
    except (FirstAdministratorExistsError, InvalidLoginError, LoginTakenError) as error:
        raise SetupError("bootstrap", error.title[:1].lower() + error.title[1:], error.fix) from error
    except SQLAlchemyError as error:
        raise SetupError("bootstrap", "identity's database can't be used", "Was it migrated?") from error
    finally:
        await database.dispose()


def _database_url() -> str:
    if known_url(_DATABASE_URL):
        return sqlalchemy_url("bootstrap", _DATABASE_URL)
    try:
        return IdentitySettings.load().sqlalchemy_url
    except ValidationError as error:
        raise SetupError(
            "bootstrap",
            "identity's settings aren't here",
            f"Run this where identity runs, or set {_DATABASE_URL}; `clinic config check identity` says more.",
        ) from error
