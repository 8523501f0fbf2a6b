"""HTTP in: the certificate that an OAuth client shows in place of a secret."""

from typing import Annotated, Self
from uuid import UUID

from clinic_shared.errors import RuleError
from clinic_shared.routing import ClinicRouter, IfMatch, Tx
from clinic_shared.step_up import RECENT_AUTHENTICATION
from pydantic import ConfigDict, Field, model_validator

from clinic_identity import clients, fields
from clinic_identity.certificate_rules import (
    MAX_PINNED,
    NAMES,
    CertificateRule,
    check_subject,
    thumbprints_of,
)
from clinic_identity.clients_api import ClientResponse

router = ClinicRouter(tags=["identity"])

_Name = Annotated[str, Field(min_length=1, max_length=500)]


class CertificateRequest(fields.Request):
    """One of the names, which one of the operator's authorities vouches for, or certificates themselves."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"subject_dn": "CN=lab.example.org,O=Fictitious laboratory"}]},
    )

    subject_dn: Annotated[_Name | None, Field(description="As RFC 4514 writes it")] = None
    san_dns: _Name | None = None
    san_uri: _Name | None = None
    san_ip: _Name | None = None
    san_email: _Name | None = None
    certificates: Annotated[
        list[Annotated[str, Field(max_length=16_384)]] | None,
        Field(
            min_length=1,
            max_length=MAX_PINNED,
            description="PEM; self-signed ones too. Two while one is renewed",
        ),
    ] = None
    tls_client_certificate_bound_access_tokens: Annotated[
        bool, Field(description="Whether its tokens come with that certificate only")
    ] = True

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in (*NAMES, "certificates") if getattr(self, name) is not None]
        if len(given) != 1:
            raise RuleError("give one of subject_dn, san_dns, san_uri, san_ip, san_email and certificates")
        return self

    def rule(self) -> CertificateRule:
        bound = self.tls_client_certificate_bound_access_tokens
        if self.certificates is not None:
            return CertificateRule(pinned=thumbprints_of(self.certificates), bound=bound)
        kind = next(name for name in NAMES if getattr(self, name) is not None)
        name = getattr(self, kind)
        return CertificateRule(
            name_kind=kind, name=check_subject(name) if kind == "subject_dn" else name, bound=bound
        )


@router.put(
    "/v1/clients/{key}/certificate",
    permission="clients.manage",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="setClientCertificate",
)
async def set_client_certificate(
    tx: Tx, key: UUID, body: CertificateRequest, expected: IfMatch
) -> ClientResponse:
    """Say which certificate a client shows when it asks for tokens; its secret and keys get it none any more."""
    return ClientResponse.of(
        await clients.set_client_certificate(tx, key, body.rule(), expected_version=expected)
    )


@router.delete(
    "/v1/clients/{key}/certificate",
    permission="clients.manage",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="removeClientCertificate",
)
async def remove_client_certificate(tx: Tx, key: UUID, expected: IfMatch) -> ClientResponse:
    """Let a client get tokens by its secret or keys again."""
    return ClientResponse.of(await clients.set_client_certificate(tx, key, None, expected_version=expected))
