"""What every room uses: files and readers within limits, exit codes, checks of values, text."""
