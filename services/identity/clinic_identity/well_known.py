"""HTTP in: what others read about us, to check our tokens and to get some."""

from clinic_shared.routing import PUBLIC, ClinicRouter
from fastapi import Response
from fastapi.responses import JSONResponse

from clinic_identity.client_assertions import ALGORITHMS
from clinic_identity.fields import CurrentDesk

router = ClinicRouter(tags=["identity"])

KEYS_CACHED_SECONDS = 300
_CACHED = {"Cache-Control": f"public, max-age={KEYS_CACHED_SECONDS}"}


class JwkSetResponse(JSONResponse):
    media_type = "application/jwk-set+json"


@router.get(
    "/.well-known/jwks.json",
    permission=PUBLIC,
    transactional=False,
    operation_id="getPublicKeys",
    response_class=JwkSetResponse,
)
async def get_public_keys(desk: CurrentDesk) -> Response:
    """Return the keys that access tokens are signed with (RFC 7517)."""
    return JwkSetResponse(desk.keys.public_jwks, headers=_CACHED)


@router.get(
    "/.well-known/smart-configuration",
    permission=PUBLIC,
    transactional=False,
    operation_id="getSmartConfiguration",
)
async def get_smart_configuration(desk: CurrentDesk) -> Response:
    """Return what OAuth2 clients need to know to get tokens here."""
    issuer = desk.settings.token_issuer
    document = {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "token_endpoint": desk.settings.token_endpoint,
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": sorted(desk.known_scopes),
        "capabilities": ["client-confidential-symmetric", "client-confidential-asymmetric"],
    }
    return JSONResponse(document, headers=_CACHED)
