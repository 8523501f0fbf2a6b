"""What identity is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from clinic_shared.context import Context
from clinic_shared.internal_tokens import ServiceVerifier
from clinic_shared.service import Runtime, Service
from clinic_shared.settings import ServiceSettings
from clinic_shared.timers import Timers

from clinic_identity import (
    access_reviews,
    api,
    auth_api,
    authorize_api,
    browser_api,
    client_certificates_api,
    clients_api,
    consumers,
    factor_api,
    forgotten,
    governance,
    governance_api,
    oauth_api,
    patient_logins_api,
    revocations,
    single_sign_on_api,
    sms_api,
    staff_api,
    token_care_api,
    userinfo,
    welcome,
    well_known,
)
from clinic_identity.bootstrap import add_first_administrator
from clinic_identity.client_certificates import ClientCertificates
from clinic_identity.client_keys import ClientKeys
from clinic_identity.clients import timers as client_timers
from clinic_identity.desk import Desk
from clinic_identity.guessable import BreachedPasswords
from clinic_identity.housekeeping import purge_regularly
from clinic_identity.keys import KeyRing
from clinic_identity.oidc_provider import OidcProvider
from clinic_identity.passkeys import PasskeySite
from clinic_identity.passwords import PasswordHasher
from clinic_identity.places import Places
from clinic_identity.public_sites import PublicSites
from clinic_identity.roles import refresh_roles
from clinic_identity.secret_box import SecretBox
from clinic_identity.settings import IdentitySettings
from clinic_identity.sign_in_policy import SignInPolicy


@asynccontextmanager
async def _open_desk(runtime: Runtime) -> AsyncIterator[None]:
    settings = cast("IdentitySettings", runtime.settings)
    keys, box = _load_keys(settings)
    passwords = PasswordHasher.from_settings(settings, box)
    breached = settings.breached_passwords_file
    desk = Desk(
        settings=settings,
        keys=keys,
        secrets=box,
        sign_in=SignInPolicy.load(settings.contracts_dir, enforced=settings.sign_in_policy_is_enforced),
        passkeys=PasskeySite.from_settings(settings),
        places=Places.load(settings.sign_in_places_file, settings.country_database_file),
        passwords=passwords,
        breached=BreachedPasswords(breached) if breached else (),
        certificates=ClientCertificates(settings),
        client_keys=ClientKeys(PublicSites(loopback=settings.client_keys_from_loopback)),
        provider=OidcProvider.from_settings(settings),
        database=runtime.database,
    )
    runtime.provide(desk)
    # Our own tokens come back to our own API; the keys are at hand without asking over HTTP.
    runtime.verifier = _verifier(runtime, keys, settings)
    runtime.on_reload(partial(_take_keys, runtime))
    async with runtime.database.transaction(Context()) as tx:
        await refresh_roles(tx, settings.contracts_dir)
    await add_first_administrator(runtime.database, desk)
    try:
        yield
    finally:
        passwords.close()
        if desk.provider is not None:
            await desk.provider.close()


def _take_keys(runtime: Runtime, settings: ServiceSettings) -> None:
    settings = cast("IdentitySettings", settings)
    keys, box = _load_keys(settings)
    desk = runtime.get(Desk)
    desk.passwords.take_keys(box)
    certificates = ClientCertificates(settings)
    runtime.provide(replace(desk, settings=settings, keys=keys, secrets=box, certificates=certificates))
    runtime.verifier = _verifier(runtime, keys, settings)


def _verifier(runtime: Runtime, keys: KeyRing, settings: IdentitySettings) -> ServiceVerifier:
    own = keys.verifier(runtime.clock)
    return ServiceVerifier.from_settings(own, settings, service="identity", clock=runtime.clock)


def _load_keys(settings: IdentitySettings) -> tuple[KeyRing, SecretBox]:
    return KeyRing.load(settings), SecretBox.load(settings)


timers = Timers()
for group in (client_timers, forgotten.timers, governance.timers, access_reviews.timers):
    for kind, handler in group.handlers.items():
        timers.on(kind)(handler)

service = Service(
    name="identity",
    package_dir=Path(__file__).parent,
    routers=(
        api.router,
        governance_api.router,
        staff_api.router,
        auth_api.router,
        patient_logins_api.router,
        sms_api.router,  # before the routes of factors, whose ids are no words
        factor_api.router,
        oauth_api.router,
        authorize_api.router,
        browser_api.router,
        single_sign_on_api.router,
        token_care_api.router,
        userinfo.router,
        clients_api.router,
        client_certificates_api.router,
        well_known.router,
        revocations.router,
        welcome.router,
    ),
    handlers=consumers.handlers,
    timers=timers,
    settings=IdentitySettings,
    key_files=_load_keys,
    startup=(_open_desk,),
    workers=(purge_regularly,),
)
