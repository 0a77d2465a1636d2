"""Who speaks: the Python interface, and the database of known speakers."""
