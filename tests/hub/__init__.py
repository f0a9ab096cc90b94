"""The Hub: a server on loopback, and what is fetched from it and put there."""
