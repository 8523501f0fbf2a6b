"""Reporting owns the read models of departments and centres; they hold no names and no contacts."""
