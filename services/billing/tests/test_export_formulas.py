"""What a spreadsheet would execute in an exported table (OWASP: CSV injection)."""

import csv
import io
from datetime import UTC, datetime

import pytest
from clinic_billing.accounting.documents import AccountingDocument, DocumentKind, to_csv
from clinic_shared.ids import uuid7


@pytest.mark.parametrize("number", ["=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_that_begins_like_a_formula_is_text(number: str) -> None:
    document = AccountingDocument(
        guid=uuid7(),
        version=1,
        kind=DocumentKind.SALE,
        number=number,
        at=datetime(2026, 3, 2, tzinfo=UTC),
        amount_minor=100,
        currency="RUB",
        legal_entity_id=uuid7(),
        patient_id=uuid7(),
        invoice_id=uuid7(),
    )
    (_, row) = csv.reader(io.StringIO(to_csv([document]), newline=""))
    assert row[3] == f"'{number}"
