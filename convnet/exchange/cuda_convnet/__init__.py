"""Nets of other programs, as configurations of this one."""
