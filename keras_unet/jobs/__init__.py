"""The three jobs of the command line, from folders to folders: train, predict, evaluate."""
