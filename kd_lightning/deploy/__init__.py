"""A finished student made smaller, written to a file, and measured there."""
