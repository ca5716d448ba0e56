"""The rules of notifications: pure, without I/O, clock or chance."""
