"""Unmask for assistants: tools of the Model Context Protocol over stdio."""
