"""What a run would have to do, and for how long."""
