"""Training: from a config to a run folder, with checkpoints, resume and progress."""
