"""Which sockets are ready, told in C. What is read from them and sent is not known here."""
