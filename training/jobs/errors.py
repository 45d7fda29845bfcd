"""Everything that can be wrong with a training job.

JobError                     500
├── JobNotFound              404
├── CampaignNotFound         404
├── TrainingActive           409
├── IllegalJobTransition     409
├── QuotaExhausted           429
├── JobRequestInvalid        422
├── NothingToTrainOn         409
├── JobAccessDenied          401
├── WorkerIdTaken            409
├── JobStopped               409
│   └── TranscriptsErased    409
└── JobsUnavailable          503
"""

from __future__ import annotations

from training.errors import TrainingError


class JobError(TrainingError):
    """The training job could not do what was asked."""

    status_code = 500


class JobNotFound(JobError):
    """There is no such training job."""

    status_code = 404


class CampaignNotFound(JobError):
    """There is no such campaign."""

    status_code = 404


class TrainingActive(JobError):
    """That user's adapter is being trained already; one training per user at a time."""

    status_code = 409


class IllegalJobTransition(JobError):
    """The job's state does not allow that."""

    status_code = 409


class QuotaExhausted(JobError):
    """The tenant has used up what its quota allows."""

    status_code = 429


class JobRequestInvalid(JobError):
    """What was asked of the training cannot be used."""

    status_code = 422


class NothingToTrainOn(JobError):
    """The user has no transcripts."""

    status_code = 409


class JobAccessDenied(JobError):
    """A valid bearer token is required."""

    status_code = 401


class WorkerIdTaken(JobError):
    """Another worker that is alive has this id; every worker needs one of its own."""

    status_code = 409


class JobStopped(JobError):
    """The job was stopped while it ran."""

    status_code = 409


class TranscriptsErased(JobStopped):
    """Transcripts that the job trains on were erased."""

    status_code = 409


class JobsUnavailable(JobError):
    """The training service did not answer."""

    status_code = 503
