"""Nets and weights of other programs."""
