"""One net over two devices (partition, transfers), and one job of several processes (ranks)."""
