"""HTTP in: what others read about us, to check our tokens and to get some."""

from typing import Any

from clinic_shared.auth import ALGORITHM
from clinic_shared.principal import AAL1, AAL2
from clinic_shared.routing import PUBLIC, ClinicRouter
from fastapi import Response
from fastapi.responses import JSONResponse

from clinic_identity import userinfo
from clinic_identity.certificate_rules import SELF_SIGNED, TLS_CLIENT_AUTH
from clinic_identity.client_assertions import ALGORITHMS
from clinic_identity.desk import Desk
from clinic_identity.fields import CurrentDesk
from clinic_identity.oauth_api import GRANT_TYPES
from clinic_identity.oauth_domain import FHIR_PATH, PROTOCOL_SCOPES
from clinic_identity.smart_scopes import SMART_SCOPES

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
    "/.well-known/openid-configuration",
    permission=PUBLIC,
    transactional=False,
    operation_id="getOpenIdConfiguration",
)
async def get_openid_configuration(desk: CurrentDesk) -> Response:
    """Return what apps need to know to let people log in here (OpenID Connect Discovery, RFC 8414)."""
    document = _common(desk) | {
        "userinfo_endpoint": f"{desk.settings.token_issuer}{userinfo.PATH}",
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "claims_supported": sorted(
            (
                "iss",
                "sub",
                "aud",
                "exp",
                "iat",
                "auth_time",
                "nonce",
                "acr",
                "amr",
                "sid",
                "at_hash",
                "fhirUser",
            )
        ),
        "acr_values_supported": [AAL1, AAL2],
        "prompt_values_supported": ["login"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    return JSONResponse(document, headers=_CACHED)


@router.get(
    f"{FHIR_PATH}/.well-known/smart-configuration",
    permission=PUBLIC,
    transactional=False,
    include_in_schema=False,
)
@router.get(
    "/.well-known/smart-configuration",
    permission=PUBLIC,
    transactional=False,
    operation_id="getSmartConfiguration",
)
async def get_smart_configuration(desk: CurrentDesk) -> Response:
    """Return what OAuth2 clients need to know to get tokens here."""
    document = _common(desk) | {
        "capabilities": [
            "launch-standalone",
            "context-standalone-patient",
            "client-public",
            "client-confidential-symmetric",
            "client-confidential-asymmetric",
            "permission-offline",
            "permission-online",
            "permission-patient",
            "permission-v1",
            "permission-v2",
            "sso-openid-connect",
        ],
    }
    return JSONResponse(document, headers=_CACHED)


def _common(desk: Desk) -> dict[str, Any]:
    issuer = desk.settings.token_issuer
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "authorization_endpoint": desk.settings.authorization_endpoint,
        "token_endpoint": desk.settings.token_endpoint,
        "introspection_endpoint": f"{issuer}/oauth2/introspect",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            *_by_certificate(desk),
            "none",
        ],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": sorted(desk.known_scopes | PROTOCOL_SCOPES | SMART_SCOPES.keys()),
        **_certificates_told(desk),
    }


def _by_certificate(desk: Desk) -> list[str]:
    if not desk.settings.mtls_url:
        return []
    return [TLS_CLIENT_AUTH, SELF_SIGNED] if desk.settings.client_authorities_file else [SELF_SIGNED]


def _certificates_told(desk: Desk) -> dict[str, Any]:
    """Return what RFC 8705 adds (3.3, 5), where clients are asked for certificates at all."""
    url = desk.settings.mtls_url.rstrip("/")
    if not url:
        return {}
    told: dict[str, Any] = {"tls_client_certificate_bound_access_tokens": True}
    if url != desk.settings.token_issuer:
        paths = {"token": "token", "introspection": "introspect", "revocation": "revoke"}
        told["mtls_endpoint_aliases"] = {
            f"{name}_endpoint": f"{url}/oauth2/{path}" for name, path in paths.items()
        }
    return told
