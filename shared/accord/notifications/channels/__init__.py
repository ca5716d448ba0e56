"""How a message is handed to a receiver: one module for each channel. They know no database."""
