"""HTTP in: orders on their way to laboratories, where those take them, and the paper that goes with a tube."""

import asyncio
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit
from uuid import UUID

from clinic_shared.errors import NotFoundError, RuleError
from clinic_shared.jurisdictions import Country
from clinic_shared.routing import Caller, ClinicRouter, CurrentContext, CurrentRuntime, IfMatch, Tx
from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from clinic_lab_integration import order_store, orders, partners, requisition
from clinic_lab_integration.models import OrderResponse, Request
from clinic_lab_integration.order_messages import Destination, Format
from clinic_lab_integration.settings import LabSettings

router = ClinicRouter(prefix="/v1/lab", tags=["lab-orders"])

PDF = "application/pdf"
HttpOrMllp = frozenset({"http", "https", "mllp", "mllps"})


def _url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in HttpOrMllp or not url.hostname or url.username or url.password:
        raise RuleError("not an address such as mllp://lab.example:2575 or https://lab.example/hl7")
    # Reading the port raises ValueError for one that is none.
    if url.port is None and url.scheme.startswith("mllp"):
        raise RuleError("MLLP has no usual port: name it")
    return text


Header = Annotated[str, Field(max_length=180)]


class DestinationRequest(Request):
    """`sending_...` and `receiving_...` are MSH-3 to MSH-6 of what is sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "format": "oml-o21",
                    "url": "mllp://lab.example:2575",
                    "sending_application": "POLYCLINIC",
                    "receiving_application": "TESTLIS",
                }
            ]
        }
    )

    format: Format = Format.OML
    url: Annotated[str, Field(max_length=500), AfterValidator(_url)] = Field(
        description="mllp://, mllps://, http:// or https://; for FHIR the base of the laboratory's server"
    )
    sending_application: Header = "POLYCLINIC"
    sending_facility: Header = ""
    receiving_application: Header = ""
    receiving_facility: Header = ""
    processing_id: Literal["P", "T", "D"] = Field(default="P", description="MSH-11")
    country: Country | None = Field(
        default=None, description="ISO 3166-1: where the laboratory is, if not in the network's own country"
    )

    def destination(self, partner_id: UUID) -> Destination:
        return Destination(partner_id=partner_id, version=0, **self.model_dump())


class DestinationResponse(BaseModel):
    partner_id: UUID
    version: int
    format: Format
    url: str
    sending_application: str
    sending_facility: str
    receiving_application: str
    receiving_facility: str
    processing_id: str
    country: str | None

    @classmethod
    def of(cls, destination: Destination) -> "DestinationResponse":
        return cls(**vars(destination))


class CancelOrderRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Ordered twice"}]})

    reason: str = Field(min_length=3, max_length=500)


@router.get(
    "/partners/{partner_id}/order-destination",
    permission="lab-partners.read",
    operation_id="getLabOrderDestination",
)
async def get_destination(tx: Tx, partner_id: UUID) -> DestinationResponse:
    """Return where a laboratory takes orders; 404 where they go on paper only."""
    found = await order_store.find_destination(tx, partner_id)
    if found is None:
        raise NotFoundError
    return DestinationResponse.of(found)


@router.put(
    "/partners/{partner_id}/order-destination",
    permission="lab-partners.manage",
    operation_id="setLabOrderDestination",
)
async def set_destination(
    runtime: CurrentRuntime, tx: Tx, partner_id: UUID, body: DestinationRequest, expected: IfMatch
) -> DestinationResponse:
    """Say where a laboratory takes orders, and as what. Orders are sent until it has answered for them.

    403 `transfer-not-allowed`: the law of the deployment's jurisdiction doesn't let patients' data go to that country.
    """
    partners.require_allowed(runtime, body.url)
    if body.country is not None:
        cast("LabSettings", runtime.settings).require_transfer(body.country)
    return DestinationResponse.of(
        await orders.set_destination(tx, body.destination(partner_id), expected_version=expected)
    )


@router.post("/orders/{lab_order_id}/cancel", permission="lab-orders.place", operation_id="cancelLabOrder")
async def cancel_order(tx: Tx, caller: Caller, lab_order_id: UUID, body: CancelOrderRequest) -> OrderResponse:
    """Cancel an order without results. A laboratory that was told of the order is told of this too."""
    order = await orders.cancel_order(tx, lab_order_id, body.reason, caller=caller)
    return OrderResponse.of(order, await order_store.of_orders(tx, [lab_order_id]))


@router.post(
    "/orders/{lab_order_id}/send-again", permission="lab-orders.place", operation_id="sendLabOrderAgain"
)
async def send_again(tx: Tx, caller: Caller, lab_order_id: UUID) -> OrderResponse:
    """Send what the laboratory has refused once more. What it hasn't answered is tried again by itself."""
    order = await orders.send_again(tx, lab_order_id, caller=caller)
    return OrderResponse.of(order, await order_store.of_orders(tx, [lab_order_id]))


@router.get(
    "/orders/{lab_order_id}/requisition",
    permission="lab-orders.read",
    transactional=False,
    operation_id="getLabRequisition",
    response_class=Response,
    responses={200: {"content": {PDF: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_requisition(runtime: CurrentRuntime, context: CurrentContext, lab_order_id: UUID) -> Response:
    """Return the requisition as a PDF: who, what, and the order number as a barcode (Code 128)."""
    async with runtime.database.transaction(context) as tx:
        order = await orders.read_order(tx, lab_order_id, caller=context.principal)
        person, _ = await order_store.who(tx, order.patient_id)
    # Typesetting takes its time, and a connection must not wait for it.
    document = await asyncio.to_thread(requisition.typeset, order, person)
    return Response(
        document,
        media_type=PDF,
        headers={"Content-Disposition": f'inline; filename="{order.placer_order_number}.pdf"'},
    )
