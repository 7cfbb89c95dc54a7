"""The figures of a report, each a PNG with a text for those who can't see it; one kind a file."""
