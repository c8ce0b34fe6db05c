"""The record: every table, every migration and every query."""
