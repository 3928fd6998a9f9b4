"""Who may see what: protocols divide images into folds."""
