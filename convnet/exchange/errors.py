"""What goes wrong when a net is imported or exported."""


class ExchangeError(ValueError):
    """A file that cannot be used, or a net that the other format cannot hold; one line that names
    the file, what was expected and what was found."""
