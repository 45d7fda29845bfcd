"""Taking adapters in: begin, upload, complete."""
