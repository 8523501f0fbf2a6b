"""Billing owns prices, invoices, payments, refunds and the ledger of every movement of money."""
