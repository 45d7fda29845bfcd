"""Who is being erased: asking for it, the sign that refuses everything of theirs, the report of what was done where."""
