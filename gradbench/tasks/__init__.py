"""Tasks: the targets that predictions are compared with, and the measures of the comparison."""
