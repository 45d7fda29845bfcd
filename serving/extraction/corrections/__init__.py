"""What people did to facts: edited, confirmed or forbade them; it survives every new extraction."""
