"""Everything training can refuse to do.

TrainingError                    500
├── BaseModelUnavailable         422
├── ConfigInvalid                422
├── DatasetError                 422
│   ├── DatasetTooSmall          422
│   ├── DatasetDamaged           422
│   └── DatasetConflict          409
├── WriterError                  502
│   ├── WriterUnavailable        503
│   ├── WriterRefused            422
│   ├── WriterTooExpensive       422
│   ├── WriterStale              409
│   └── WriterFailed             502
├── CurationInvalid              422
├── AdapterUnreadable            422
├── TrainingFailed               500
│   ├── LossNotFinite            500
│   ├── OutOfMemory              500
│   └── DiskFull                 500
├── TrainingPaused               409
└── GateNotPassed                409
"""

from __future__ import annotations

from kit.errors import LorryError


class TrainingError(LorryError):
    """Training could not do what was asked."""


class BaseModelUnavailable(TrainingError):
    """That base model cannot be prepared on this machine."""

    status_code = 422


class ConfigInvalid(TrainingError):
    """The training configuration cannot be used."""

    status_code = 422


class DatasetError(TrainingError):
    """The dataset cannot be used."""

    status_code = 422


class DatasetTooSmall(DatasetError):
    """The transcripts hold too little of the user's own words to train on."""


class DatasetDamaged(DatasetError):
    """The dataset's files are missing or are not the ones that its digest covers."""


class DatasetConflict(DatasetError):
    """That directory already holds a different dataset; datasets never change."""

    status_code = 409


class WriterError(TrainingError):
    """The question writer could not write."""

    status_code = 502


class WriterUnavailable(WriterError):
    """The question writer's service does not answer now; asking again later may help."""

    status_code = 503


class WriterRefused(WriterError):
    """The question writer's service refuses what it is asked; asking again would not help."""

    status_code = 422


class WriterTooExpensive(WriterError):
    """Writing the questions would cost more than was allowed."""

    status_code = 422


class WriterStale(WriterError):
    """What was begun cannot be continued: the transcripts or the writer's settings have changed since."""

    status_code = 409


class WriterFailed(WriterError):
    """The question writer gave too little that can be used.

    Where no work goes on from what was answered, the detail `spent` is what it cost, as `Cost.to_json` writes it.
    """


class CurationInvalid(TrainingError):
    """A review's decision cannot be applied."""

    status_code = 422


class AdapterUnreadable(TrainingError):
    """That directory does not hold an adapter written by PEFT."""

    status_code = 422


class TrainingFailed(TrainingError):
    """The adapter could not be trained."""


class LossNotFinite(TrainingFailed):
    """The training loss became infinite or not a number."""


class OutOfMemory(TrainingFailed):
    """Out of memory: lower batch_size or max_length, or set gradient_checkpointing."""


class DiskFull(TrainingFailed):
    """There is no room left where the adapter should be written."""


class TrainingPaused(TrainingError):
    """The training stopped on request, after it wrote a checkpoint from which it can go on."""

    status_code = 409


class GateNotPassed(TrainingError):
    """The new version did not beat its gate, so no alias was moved to it."""

    status_code = 409
