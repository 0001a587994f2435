"""Pictures for a person to look at: preview, tree, repair."""
