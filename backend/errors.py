"""One family of expected errors. Each message names what was expected, what came, and what to do.

HTTP status codes are assigned in `backend/api/errors.py` only; the command line prints the message in one line.
"""

from __future__ import annotations


class CellloopError(Exception):
    """Base of every error a person can mend. Its text is shown to users as it is."""


class InvalidInstances(CellloopError):
    """Arrays of instances contradict each other in shape, type or range."""


class ImageRefused(CellloopError):
    """A file is not an image we can read safely: truncated, not an image, too large, animated."""


class ImageOutsideRoots(CellloopError):
    """A task names an image outside the allowed folders."""


class UnusableAnnotations(CellloopError):
    """An annotation file cannot be understood at all (single bad records are counted, not raised)."""


class UnusableLabelConfig(CellloopError):
    """A labelling configuration has no control that can carry our cells."""


class LabelStudioUnavailable(CellloopError):
    """Label Studio does not answer, or answers with a server error."""


class LabelStudioRefused(CellloopError):
    """Label Studio answers, but refuses our token or our request."""


class NoTrainedModel(CellloopError):
    """A pre-annotation was asked for and no active model pair exists yet."""


class WeightsCorrupt(CellloopError):
    """A weight file does not have the sha256 its row promises, or not the tensors its configuration needs."""


class WeightsUnavailable(CellloopError):
    """Pre-trained weights would have to be downloaded, and the network does not allow it."""


class StoredFileCorrupt(CellloopError):
    """A file in the store is missing, or its bytes are not the ones its sha256 names."""


class FileStoreUnavailable(CellloopError):
    """The far file store (CELLLOOP_FILES_URL) does not answer, or refuses to be read or written."""


class DiskFull(CellloopError):
    """A file could not be written for want of room; what was there before is untouched."""


class ArchiveDamaged(CellloopError):
    """A backup is not whole: cut off, changed, or no backup at all."""


class RestoreRefused(CellloopError):
    """A backup was to be restored into an installation that is not empty, or by a version that does not know it."""


class NotEnoughData(CellloopError):
    """Training or evaluation was asked for on an empty or unusable selection."""


class TrainingDiverged(CellloopError):
    """A loss became non-finite; the message holds the values."""


class TrainingBroken(CellloopError):
    """A training in several processes ended before its time."""


class OutOfMemory(CellloopError):
    """Training needs more memory than there is, even for one crop at a time."""


class PortInUse(CellloopError):
    """A server was to listen on a port that somebody else holds."""


class CredentialsUnusable(CellloopError):
    """The file of secrets can be read by others, or is damaged."""


class HomeUnusable(CellloopError):
    """The home folder cannot be made or written to."""


class DeviceUnavailable(CellloopError):
    """Detectors were to run on a device this machine does not have."""


class DatabaseNotMigrated(CellloopError):
    """The database lacks tables of this version, or has those of another one."""


class WorkerRunning(CellloopError):
    """A second worker was to run the durable jobs of one home with SQLite."""


class UnknownQueue(CellloopError):
    """A worker was to take work from a queue that there is not."""


class NotConnected(CellloopError):
    """A command needs a Label Studio project and none is connected yet."""


class SettingRefused(CellloopError):
    """An option of a command has a value that cannot be meant."""


class ComparisonUnavailable(CellloopError):
    """A comparison needs a package that is only installed for development."""
