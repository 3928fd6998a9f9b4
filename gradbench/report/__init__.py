"""Tables and figures: every one of them a view of the rows of a run."""
