"""Who may see which images, how scores become numbers, and how far the numbers can be trusted."""
