"""The question bank: topics, what is asked about each, and what a tenant adds to it."""

from serving.extraction.bank.bank import STANDARD_BANK, Ask, Bank, Question, Topic, standard_bank

__all__ = ["STANDARD_BANK", "Ask", "Bank", "Question", "Topic", "standard_bank"]
