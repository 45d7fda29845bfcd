"""Everything serving can refuse to do.

ServingError                     500
├── EngineError                  500
│   ├── EngineMisconfigured      500
│   ├── AdapterUnfit             409
│   ├── AdapterDamaged           502
│   ├── AdapterNotLoaded         500
│   │   └── AdapterLost          503
│   ├── CacheFull                503
│   ├── CacheBusy                503
│   ├── MachineRefused           503
│   ├── ObjectStoreUnavailable   503
│   ├── RegistryRefusedEngine    503
│   ├── EngineOutOfTouch         503
│   ├── EngineReplaced           503
│   ├── EngineBusy               429
│   ├── AdmissionTimeout         503
│   ├── AdapterClosed            409
│   ├── TierFull                 503
│   │   └── PinsFull             409
│   ├── EngineDraining           503
│   ├── LeaseOver                500
│   ├── AdapterInUse             409
│   ├── AdapterPinned            409
│   ├── AdapterNotHeld           404
│   ├── OrderInvalid             422
│   └── TooManySequences         422
├── EngineCallError              502
│   ├── EngineUnavailable        503
│   ├── EngineTimeout            504
│   ├── EngineRefused            400
│   ├── BaseWithoutEngine        503
│   └── EngineAnswerUnusable     502
├── ExtractionError              500
│   ├── BankInvalid              422
│   ├── BaseNotServed            503
│   ├── BudgetTooSmall           422
│   ├── CorrectionInvalid        422
│   ├── CorrectionNotFound       404
│   ├── FactNotFound             404
│   └── ProfileExists            409
└── GatewayError                 500
    ├── Unauthorized             401
    ├── UnknownUser              404
    ├── NeverErased              404
    ├── UnknownModel             404
    ├── NoAdapter                409
    ├── ProfileNotExtracted      404
    ├── AnswerTruncated          422
    ├── ExtractionBusy           503
    ├── NotAcceptable            406
    ├── ScopeMissing             403
    ├── UnknownScope             422
    ├── ApiKeyNotFound           404
    ├── RateExceeded             429
    ├── TooManyRequestsAtOnce    429
    ├── DeadlineExceeded         504
    ├── HeaderInvalid            422
    ├── IdempotencyConflict      409
    ├── RequestStillRunning      409
    ├── CursorInvalid            422
    ├── LinesInvalid             422
    ├── GatewayDraining          503
    ├── TrainingUnavailable      503
    └── TrainingRefused          409
"""

from __future__ import annotations

from kit.errors import LorryError


class ServingError(LorryError):
    """Serving could not do what was asked."""


class EngineError(ServingError):
    """The engine could not do what was asked."""

    ask_another = False
    """Whether it is this engine alone that refuses: a load balancer is told so, and asks another one."""


class EngineMisconfigured(EngineError):
    """The engine cannot start with these settings."""


class AdapterUnfit(EngineError):
    """The adapter is larger than this engine's slots, or touches layers that it does not serve."""

    status_code = 409


class AdapterDamaged(EngineError):
    """What was downloaded is not what the manifest describes."""

    status_code = 502


class AdapterNotLoaded(EngineError):
    """The engine could not load the adapter's weights."""


class AdapterLost(AdapterNotLoaded):
    """The engine lost the adapter; ask again."""

    status_code = 503


class CacheFull(EngineError):
    """The engine's disk has no room for the adapter."""

    status_code = 503
    ask_another = True


class CacheBusy(EngineError):
    """Another process has been installing this adapter for too long."""

    status_code = 503


class MachineRefused(EngineError):
    """The engine's machine has no memory, descriptors or working disk left for the adapter; try again."""

    status_code = 503
    ask_another = True


class ObjectStoreUnavailable(EngineError):
    """The object store did not send the adapter's files; try again."""

    status_code = 503


class RegistryRefusedEngine(EngineError):
    """The registry does not accept this engine's token."""

    status_code = 503


class EngineOutOfTouch(EngineError):
    """The engine has not heard from the registry for too long, so it serves no adapter until it does."""

    status_code = 503
    ask_another = True


class EngineReplaced(EngineError):
    """Another engine runs under this engine's id, so this one serves no adapter: give each an id of its own."""

    status_code = 503
    ask_another = True


class EngineBusy(EngineError):
    """More requests wait for the engine than it queues; try again later."""

    status_code = 429


class AdmissionTimeout(EngineError):
    """The request waited for the engine until its deadline."""

    status_code = 503


class AdapterClosed(EngineError):
    """The adapter is no longer served here."""

    status_code = 409


class TierFull(EngineError):
    """The engine has no room for another adapter: all that it holds are in use."""

    status_code = 503


class PinsFull(TierFull):
    """As many adapters are pinned in this engine as may be: unpin one first."""

    status_code = 409


class EngineDraining(EngineError):
    """The engine is being drained and takes no new requests; try again, or ask another one."""

    status_code = 503
    ask_another = True


class LeaseOver(EngineError):
    """The request asked the engine for more than it was admitted for."""


class AdapterInUse(EngineError):
    """Requests still run on the adapter, so it stays."""

    status_code = 409


class AdapterPinned(EngineError):
    """The adapter is pinned, so it stays: unpin it first."""

    status_code = 409


class AdapterNotHeld(EngineError):
    """This engine does not hold the adapter."""

    status_code = 404


class OrderInvalid(EngineError):
    """What the engine was told to do cannot be understood."""

    status_code = 422


class TooManySequences(EngineError):
    """The request asks for more sequences at once than this engine computes for its class."""

    status_code = 422


class EngineCallError(ServingError):
    """The engine did not answer as asked."""

    status_code = 502


class EngineUnavailable(EngineCallError):
    """The engine did not answer; try again."""

    status_code = 503


class EngineTimeout(EngineCallError):
    """The engine took too long to answer."""

    status_code = 504


class EngineRefused(EngineCallError):
    """The engine refused the request; its reason is in the message."""

    status_code = 400


class BaseWithoutEngine(EngineCallError):
    """No engine serves the base model that this adapter was made for; the adapter answers once one does."""

    status_code = 503


class EngineAnswerUnusable(EngineCallError):
    """The engine's answer is not what its protocol promises."""


class ExtractionError(ServingError):
    """A profile could not be extracted or written."""


class BankInvalid(ExtractionError):
    """The question bank is not valid."""

    status_code = 422


class BaseNotServed(ExtractionError):
    """The engine does not call its base model as extraction was told, so nothing can be compared with it."""

    status_code = 503


class BudgetTooSmall(ExtractionError):
    """That few tokens do not hold even the heading of a profile."""

    status_code = 422


class CorrectionInvalid(ExtractionError):
    """A profile cannot be corrected like this."""

    status_code = 422


class CorrectionNotFound(ExtractionError):
    """The user's profile has no such correction that is in force."""

    status_code = 404


class FactNotFound(ExtractionError):
    """The user's profile does not state that."""

    status_code = 404


class ProfileExists(ExtractionError):
    """Something other than a profile is at the place where the profile was to be written."""

    status_code = 409


class GatewayError(ServingError):
    """The gateway could not do what was asked."""


class Unauthorized(GatewayError):
    """A valid API key is required: send it as `Authorization: Bearer lorry_…`."""

    status_code = 401


class UnknownUser(GatewayError):
    """This tenant has neither transcripts nor an adapter of that user."""

    status_code = 404


class NeverErased(GatewayError):
    """Nobody has asked to erase that user."""

    status_code = 404


class UnknownModel(GatewayError):
    """There is no such model; models are named users/<user_id>."""

    status_code = 404


class NoAdapter(GatewayError):
    """The user has no live adapter yet: train and publish one first."""

    status_code = 409


class ProfileNotExtracted(GatewayError):
    """The user has an adapter but no profile yet: POST to the same address extracts it."""

    status_code = 404


class AnswerTruncated(GatewayError):
    """The answer was cut before it was complete JSON: allow more tokens."""

    status_code = 422


class ExtractionBusy(GatewayError):
    """Too many extractions are running here; try again."""

    status_code = 503


class NotAcceptable(GatewayError):
    """There is no form of this that the request accepts."""

    status_code = 406


class ScopeMissing(GatewayError):
    """This API key may not be used for that."""

    status_code = 403


class UnknownScope(GatewayError):
    """There is no such scope."""

    status_code = 422


class ApiKeyNotFound(GatewayError):
    """The tenant has no such API key in force."""

    status_code = 404


class RateExceeded(GatewayError):
    """The tenant sends more requests than it may; wait as long as `Retry-After` says."""

    status_code = 429


class TooManyRequestsAtOnce(GatewayError):
    """The tenant has as many requests running as it may; wait until one has ended."""

    status_code = 429


class DeadlineExceeded(GatewayError):
    """The deadline that the request came with has passed."""

    status_code = 504


class HeaderInvalid(GatewayError):
    """A header of the request cannot be understood."""

    status_code = 422


class IdempotencyConflict(GatewayError):
    """This idempotency key was used for another request; choose a new one for each request."""

    status_code = 409


class RequestStillRunning(GatewayError):
    """The first request with this idempotency key is still running; ask again for its answer."""

    status_code = 409


class CursorInvalid(GatewayError):
    """That cursor was not given by an earlier page of this listing."""

    status_code = 422


class LinesInvalid(GatewayError):
    """No line of the body is a transcript."""

    status_code = 422


class GatewayDraining(GatewayError):
    """This gateway is stopping; ask another one."""

    status_code = 503


class TrainingUnavailable(GatewayError):
    """The training service did not answer; try again."""

    status_code = 503


class TrainingRefused(GatewayError):
    """The training service refused; its reason is in the message."""

    status_code = 409
