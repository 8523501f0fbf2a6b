"""Invoices and acts of rendered services on paper (PDF). They name a patient by number: billing knows no names."""
