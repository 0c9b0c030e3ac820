"""The whole source document run again: every figure of it beside ours."""
