"""HTTP in: documents that laboratories embed in results, to be listed and opened."""

from typing import Annotated
from uuid import UUID

from clinic_shared.routing import Caller, ClinicRouter, Tx
from fastapi import Path, Response
from pydantic import BaseModel

from clinic_lab_integration import documents
from clinic_lab_integration.documents import Document

router = ClinicRouter(prefix="/v1/lab/results", tags=["lab-integration"])

READ = "results.read"
DocumentId = Annotated[
    str, Path(pattern=r"^[0-9]{1,9}\.[0-9]{1,6}$", description="`document_id` of the list")
]


class ResultDocument(BaseModel):
    """`size` in bytes; `result_version` is the version of the result that brought it."""

    document_id: str
    result_version: int
    title: str
    media_type: str
    size: int
    sha256: str

    @classmethod
    def of(cls, document: Document) -> "ResultDocument":
        return cls(
            document_id=document.document_id,
            result_version=document.version,
            title=document.title,
            media_type=document.media_type,
            size=len(document.content),
            sha256=document.sha256,
        )


class ResultDocuments(BaseModel):
    items: list[ResultDocument]


@router.get("/{result_id}/documents", permission=READ, operation_id="listLabResultDocuments")
async def list_documents(tx: Tx, caller: Caller, result_id: UUID) -> ResultDocuments:
    """List the documents that a laboratory has embedded in a result, those of the newest version first."""
    found = await documents.list_documents(tx, result_id, caller=caller)
    return ResultDocuments(items=[ResultDocument.of(document) for document in found])


@router.get(
    "/{result_id}/documents/{document_id}",
    permission=READ,
    operation_id="getLabResultDocument",
    response_class=Response,
    responses={200: {"description": "The document as it is", "content": {"application/pdf": {}}}},
)
async def get_document(tx: Tx, caller: Caller, result_id: UUID, document_id: DocumentId) -> Response:
    """Return a document's bytes. It is somebody else's: to be saved, and not run in the clinic's pages."""
    document = await documents.read_document(tx, result_id, document_id, caller=caller)
    name = f"result-{document_id}.{document.media_type.rpartition('/')[2]}"
    return Response(
        document.content,
        media_type=document.media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "X-Content-Type-Options": "nosniff",
        },
    )
