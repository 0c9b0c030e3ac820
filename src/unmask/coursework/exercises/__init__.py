"""The exercises of the course report, one a file."""
