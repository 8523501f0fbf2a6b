"""Notifications owns what the clinic tells its patients: templates, preferences, and every message's fate."""
