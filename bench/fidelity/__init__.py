"""Parts of the benchmark `extraction_fidelity`: made people, an independent checker, figures and fitting."""
