"""Images: where they come from, how they are brought to one shape, and who may see them."""
