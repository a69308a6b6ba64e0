"""What all subpackages use: files and readers within limits, exit codes, checks of values, text."""
