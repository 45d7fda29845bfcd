"""What a profile is, which fact is the same in two of them, and how two differ."""

from serving.extraction.profile.difference import Difference, compare_profiles
from serving.extraction.profile.profile import (
    AdapterVersion,
    Agreement,
    Asked,
    BankVersion,
    CalibrationVersion,
    Marked,
    Pattern,
    Profile,
    Quote,
    Statement,
    TopicSection,
    profile_schema,
    schema_text,
)

__all__ = [
    "AdapterVersion",
    "Agreement",
    "Asked",
    "BankVersion",
    "CalibrationVersion",
    "Difference",
    "Marked",
    "Pattern",
    "Profile",
    "Quote",
    "Statement",
    "TopicSection",
    "compare_profiles",
    "profile_schema",
    "schema_text",
]
