"""The update rule, its learning rates over time, and rates of groups of parameters."""
