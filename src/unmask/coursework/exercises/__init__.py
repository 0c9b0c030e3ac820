"""The exercises of the course report, one in each file."""
