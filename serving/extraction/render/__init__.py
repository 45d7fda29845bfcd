"""A profile for a person to read, for an agent's context window, and as files."""

from serving.extraction.render.files import FILES, fact_lines, write_profile
from serving.extraction.render.markdown import render_markdown

__all__ = ["FILES", "fact_lines", "render_markdown", "write_profile"]
