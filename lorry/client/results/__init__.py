"""What calls return. A newer gateway may say more than a client knows: what is unknown is left out."""

from lorry.client.results.answers import AdapterVersion, Answer, ChatAnswer, Model
from lorry.client.results.banks import BankQuestion, BankTopic, QuestionBank, TenantBank
from lorry.client.results.erasures import Erasure, StoreErasure
from lorry.client.results.extractions import (
    Extraction,
    ExtractionFailure,
    ExtractionProgress,
    ExtractionResult,
    ExtractionSelection,
    ExtractionState,
    ExtractionWebhook,
    Only,
)
from lorry.client.results.profiles import (
    Agreement,
    Correction,
    CorrectionKind,
    FactChange,
    Mark,
    Profile,
    ProfileDifference,
    Quote,
    Statement,
)
from lorry.client.results.trainings import Training, TrainingDetails, TrainingEntry, TrainingEvent
from lorry.client.results.transcripts import BulkResult, RefusedLine, Transcript, TranscriptHead, Turn
from lorry.client.results.usage import Usage

__all__ = [
    "AdapterVersion",
    "Agreement",
    "Answer",
    "BankQuestion",
    "BankTopic",
    "BulkResult",
    "ChatAnswer",
    "Correction",
    "CorrectionKind",
    "Erasure",
    "Extraction",
    "ExtractionFailure",
    "ExtractionProgress",
    "ExtractionResult",
    "ExtractionSelection",
    "ExtractionState",
    "ExtractionWebhook",
    "FactChange",
    "Mark",
    "Model",
    "Only",
    "Profile",
    "ProfileDifference",
    "QuestionBank",
    "Quote",
    "RefusedLine",
    "Statement",
    "StoreErasure",
    "TenantBank",
    "Training",
    "TrainingDetails",
    "TrainingEntry",
    "TrainingEvent",
    "Transcript",
    "TranscriptHead",
    "Turn",
    "Usage",
]
