"""One module per source format; each turns bytes into transcripts."""
