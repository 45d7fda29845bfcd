"""How sure a fact is: agreement, contrast and support, and the confidence that is calibrated from them."""
