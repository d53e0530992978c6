"""Damaged and odd files for every reader: each is refused in one line, or read as it is."""
