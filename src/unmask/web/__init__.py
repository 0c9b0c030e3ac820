"""The page and the HTTP API of `unmask serve`: everything on this machine, nothing from the net."""
