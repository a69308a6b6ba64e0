"""Search by features: nearest neighbours, hash codes, and how good they are."""
