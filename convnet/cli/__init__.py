"""The `convnet` command, a file per group of commands."""
