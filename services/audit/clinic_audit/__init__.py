"""Audit owns the audit record repository: an append-only Merkle log with signed checkpoints."""
