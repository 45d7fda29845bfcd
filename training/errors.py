"""Everything training can refuse to do.

TrainingError                    500
├── BaseModelUnavailable         422
├── ConfigInvalid                422
├── DatasetError                 422
│   ├── DatasetTooSmall          422
│   ├── DatasetDamaged           422
│   └── DatasetConflict          409
├── AdapterUnreadable            422
├── TrainingFailed               500
│   └── LossNotFinite            500
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


class AdapterUnreadable(TrainingError):
    """That directory does not hold an adapter written by PEFT."""

    status_code = 422


class TrainingFailed(TrainingError):
    """The adapter could not be trained."""


class LossNotFinite(TrainingFailed):
    """The training loss became infinite or not a number."""


class GateNotPassed(TrainingError):
    """The new version did not beat its gate, so no alias was moved to it."""

    status_code = 409
