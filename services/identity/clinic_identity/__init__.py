"""People, laboratories and apps: who they are, what they may do, and where in the organisation."""
