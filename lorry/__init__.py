"""The lorry command and the single-machine composition; the only package that sees every room."""
