"""A run as one page that anyone can open: what was trained, how well, and what it confuses."""
