"""Images: data sets and their catalogue, loading, resampling, and the roles of splits."""
