"""What torch sees: one op, closed under differentiation, and the rules around it."""
