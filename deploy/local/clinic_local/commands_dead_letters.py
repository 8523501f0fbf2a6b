"""`clinic dead-letters`: messages that could not take effect. Seen, handled again, mended, or let be.

An id belongs to a service: each keeps its own held, parked and discarded messages.
"""

import typer

from clinic_local import dead_letters_act, dead_letters_view

app = typer.Typer(
    help="Messages that could not take effect: show, redrive, correct, discard.", no_args_is_help=True
)
app.add_typer(dead_letters_view.app)
app.add_typer(dead_letters_act.app)
