"""Errors of the record: a small tree of its own, since `db` imports no other package of ours."""

from __future__ import annotations


class RecordError(Exception):
    """Base of every refusal of the record. Its text is shown to users as it is."""


class NotFound(RecordError):
    """A row that was asked for by its id or name does not exist."""


class IllegalTransition(RecordError):
    """A state machine was asked for a step that `db/models.py` does not list."""


class AlreadyFrozen(RecordError):
    """A frozen split was to be replaced by another content."""


class UnusableDatabase(RecordError):
    """A database address that the record cannot live in."""


class UnusableQuestion(RecordError):
    """A question to the history that cannot be answered: a filter's value, or a cursor of another question."""


class RowsRefused(RecordError):
    """Rows that were to be inserted in bulk break the rules of their table, or hold what the engine cannot store."""


class ImageForgotten(RecordError):
    """An image of a forgotten patient was to come back."""


class PatientInUse(RecordError):
    """A patient was to be forgotten while a training works with the images."""


class TakenOver(RecordError):
    """A worker writes about a run that another worker has taken over."""
