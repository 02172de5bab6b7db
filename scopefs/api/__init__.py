"""The HTTP door: translates requests to the vault. Nothing here decides what is stored."""
