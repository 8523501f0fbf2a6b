"""Events in: none. Records arrive on a stream of their own (`intake.py`)."""

from clinic_shared.consumer import Handlers

handlers = Handlers("audit")
