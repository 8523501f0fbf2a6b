"""One machine, no containers: the `clinic` command, its supervisor, private servers, fakes of outside vendors."""
