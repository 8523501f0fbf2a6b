"""Referrals owns the edge between departments: who asked whom to see a patient, and what became of it."""
