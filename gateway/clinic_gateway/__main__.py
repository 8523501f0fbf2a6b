"""`python -m clinic_gateway`: serve with the settings of the environment."""

import os

from clinic_gateway.app import main

main(os.environ)
