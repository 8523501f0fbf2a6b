"""The only HTTP door: routes, authenticates, limits and passes on. It keeps no data."""
