"""Everything that can be wrong with a batch extraction.

BatchError                   500
├── BatchNotFound            404
├── IllegalBatchTransition   409
├── BatchRequestInvalid      422
├── MediaTypeUnsupported     415
├── TooManyUsers             422
├── TooManyBatches           429
├── WebhookRefused           422
├── WebhooksNotSetUp         409
├── WebhookFailed            502
├── WorkerIdTaken            409
├── TookTooLong              504
└── WorkersDied              500
"""

from __future__ import annotations

from serving.errors import ServingError


class BatchError(ServingError):
    """The batch extraction could not do what was asked."""


class BatchNotFound(BatchError):
    """There is no such batch extraction."""

    status_code = 404


class IllegalBatchTransition(BatchError):
    """The batch's state does not allow that."""

    status_code = 409


class BatchRequestInvalid(BatchError):
    """What was asked of the batch cannot be used."""

    status_code = 422


class MediaTypeUnsupported(BatchError):
    """A batch is submitted as JSON or as lines."""

    status_code = 415


class TooManyUsers(BatchError):
    """The batch has more users than the tenant may have in one."""

    status_code = 422


class TooManyBatches(BatchError):
    """The tenant has as many unfinished batches as it may have."""

    status_code = 429


class WebhookRefused(BatchError):
    """That address may not be told of batches."""

    status_code = 422


class WebhooksNotSetUp(BatchError):
    """Webhooks need LORRY_EXTRACTION_WEBHOOK_KEY, which is not set here."""

    status_code = 409


class WebhookFailed(BatchError):
    """The webhook's receiver did not take the message."""

    status_code = 502


class WorkerIdTaken(BatchError):
    """Another extraction worker that is alive has this id; every worker needs one of its own."""

    status_code = 409


class TookTooLong(BatchError):
    """The user's extraction took longer than one may."""

    status_code = 504


class WorkersDied(BatchError):
    """Too many workers have died while they had this user in hand."""
