"""The fault harness: real processes of an installation, broken on purpose, and what must hold afterwards."""
