"""Passkeys and hardware keys (WebAuthn): bound to our site, and the authenticator has verified its user."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from clinic_identity.domain import Account
from clinic_identity.factors import PasskeysNotOfferedError, SecondFactor
from clinic_identity.settings import IdentitySettings

MAX_CREDENTIAL_BYTES = 16 * 1024
_ALGORITHMS = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
_TIMEOUT_MILLISECONDS = 300_000


class PasskeyRefusedError(Exception):
    """What the authenticator or browser sent doesn't prove anything."""


@dataclass(frozen=True)
class NewPasskey:
    credential_id: bytes
    public_key: bytes
    sign_count: int


@dataclass(frozen=True)
class PasskeySite:
    """The site that passkeys are bound to: its domain, and the origins whose pages may ask for them."""

    domain: str
    origins: tuple[str, ...]
    name: str

    @classmethod
    def from_settings(cls, settings: IdentitySettings) -> Self:
        return cls(settings.passkey_rp_id, settings.passkey_origin_list, settings.site_name)

    def creation_options(self, account: Account, known: Iterable[SecondFactor]) -> tuple[bytes, Any]:
        """Return the challenge, and what a page hands to `navigator.credentials.create`."""
        self._require_domain()
        options = generate_registration_options(
            rp_id=self.domain,
            rp_name=self.name,
            user_id=account.account_id.bytes,
            user_name=account.login,
            timeout=_TIMEOUT_MILLISECONDS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=_descriptors(known),
            supported_pub_key_algs=_ALGORITHMS,
        )
        return options.challenge, json.loads(options_to_json(options))

    def request_options(self, known: Iterable[SecondFactor]) -> tuple[bytes, Any]:
        """Return the challenge, and what a page hands to `navigator.credentials.get`."""
        self._require_domain()
        options = generate_authentication_options(
            rp_id=self.domain,
            timeout=_TIMEOUT_MILLISECONDS,
            allow_credentials=_descriptors(known),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options.challenge, json.loads(options_to_json(options))

    def check_new(self, credential: Mapping[str, Any], challenge: bytes) -> NewPasskey:
        """Raises PasskeyRefusedError."""
        try:
            made = verify_registration_response(
                credential=dict(credential),
                expected_challenge=challenge,
                expected_rp_id=self.domain,
                expected_origin=list(self.origins),
                require_user_verification=True,
                supported_pub_key_algs=_ALGORITHMS,
            )
        except _MALFORMED as error:
            raise PasskeyRefusedError from error
        return NewPasskey(made.credential_id, made.credential_public_key, made.sign_count)

    def check_use(self, credential: Mapping[str, Any], challenge: bytes, factor: SecondFactor) -> int:
        """Return the authenticator's new count of signatures. Raises PasskeyRefusedError."""
        try:
            used = verify_authentication_response(
                credential=dict(credential),
                expected_challenge=challenge,
                expected_rp_id=self.domain,
                expected_origin=list(self.origins),
                credential_public_key=factor.public_key or b"",
                credential_current_sign_count=factor.sign_count or 0,
                require_user_verification=True,
            )
        except _MALFORMED as error:
            raise PasskeyRefusedError from error
        return used.new_sign_count

    def _require_domain(self) -> None:
        if not self.domain:
            raise PasskeysNotOfferedError


# Parsing goes through CBOR, base64 and COSE, whose errors the library lets through.
_MALFORMED = (WebAuthnException, ValueError, TypeError, KeyError, AttributeError, IndexError)


def _descriptors(known: Iterable[SecondFactor]) -> list[PublicKeyCredentialDescriptor]:
    return [PublicKeyCredentialDescriptor(id=one.credential_id) for one in known if one.credential_id]
