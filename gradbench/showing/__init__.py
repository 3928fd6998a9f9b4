"""Pictures of data sets and of what challenges make of them."""
