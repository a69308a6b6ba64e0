"""Counts of what kernels do on the virtual GPU, and what follows for the time on a real one."""
